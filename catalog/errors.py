"""What can go wrong in the catalog.

CatalogError (ValueError)        a user can act on it: the message names value, expectation and fix
├── StorageError                 a URI that cannot be read or written
│   └── StorageUnavailable       a remote storage that does not answer, after all retries
├── ImageError                   bytes that are no usable picture; carries the ledger's `rule`
├── SourceError                  a source of images that cannot be listed
├── FilterError                  an expression on an image's columns that means nothing
├── CorruptSampleError           stored bytes that do not match their recorded hash
├── DatasetError                 a dataset folder that is missing, incomplete or of another recipe
└── DeterminismError             two equal attempts at one unit gave different bytes
"""


class CatalogError(ValueError):
    """Base of every error that the catalog raises for its callers."""


class StorageError(CatalogError):
    """A URI cannot be read or written."""


class StorageUnavailable(StorageError):
    """A remote storage does not answer, or only with errors of its own, after all retries."""


class ImageError(CatalogError):
    """Bytes are not a picture that the factory accepts.

    Attributes:
        rule: short stable reason for the ledger, for example ``damaged``.
        value: the measured number behind the reason, where there is one.
    """

    def __init__(self, rule: str, message: str, *, value: float | None = None) -> None:
        super().__init__(message)
        self.rule = rule
        self.value = value


class SourceError(CatalogError):
    """A source of images cannot be listed or read as what it claims to be."""


class FilterError(CatalogError):
    """An expression cannot be understood, or names a column that no image has."""


class CorruptSampleError(CatalogError):
    """Stored bytes differ from the hash that the commit recorded for them."""


class DatasetError(CatalogError):
    """A dataset folder is missing, incomplete, or belongs to another recipe."""


class DeterminismError(CatalogError):
    """Two attempts at one unit, in equal environments, produced different bytes."""
