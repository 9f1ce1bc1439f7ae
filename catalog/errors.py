"""What can go wrong in the catalog, and whether an error is of an image or of the place.

CatalogError (ValueError)        a user can act on it: the message names value, expectation and fix
├── StorageError                 a URI that cannot be read or written
│   └── StorageUnavailable       a remote storage that does not answer, after all retries
├── PlaceError                   machine, mount or memory at fault; StorageUnavailable is one too
├── ImageError                   bytes that are no usable picture; carries the ledger's `rule`
├── SourceError                  a source of images that cannot be listed
├── FilterError                  an expression on an image's columns that means nothing
├── CorruptSampleError           stored bytes that do not match their recorded hash
├── DatasetError                 a dataset folder that is missing, incomplete or of another recipe
└── DeterminismError             two equal attempts at one unit gave different bytes
"""

import errno
import re
from collections.abc import Iterator

MISSING = (FileNotFoundError, NotADirectoryError)
"""What a file that is not there raises: by itself, or because the place that it lies in is gone."""

# What is wrong with a file's name or with what stands there; any other number is the place's.
_OF_A_NAME = (errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)

# By name, as nothing here may import torch.
_OF_A_DEVICE = frozenset(("AcceleratorError", "OutOfMemoryError", "WeightsError"))
_DEVICE_TROUBLE = re.compile(
    r"\b(?i:cuda|cudnn|cublas|cufft|cusolver|cusparse|nccl|nvml|nvrtc|nvidia|miopen|rocm)"
    r"|\b(HIP|MPS|XPU)\b"
    r"|(?i:out of memory|(can't|cannot) allocate memory|insufficient memory|not enough memory)"
)


class CatalogError(ValueError):
    """Base of every error that the catalog raises for its callers."""


class StorageError(CatalogError):
    """A URI cannot be read or written."""


class PlaceError(CatalogError):
    """The machine, a mount, a storage or the memory is at fault; it says nothing of an image."""


class StorageUnavailable(StorageError, PlaceError):
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


def of_the_place(error: BaseException) -> bool:
    """Say whether an error is of the place: of machine, mount, storage, device or memory.

    It then says nothing of the image in hand, which another machine, or this one later, may find
    good. What a decoder, a detector or a rule says is of the image. A missing file (`MISSING`) is
    taken for the place's; `catalog.source.presence.check_gone` tells whether it is gone by itself.
    An error that was raised from another one is what its cause is.
    """
    return any(_of_the_place(one) for one in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _of_the_place(error: BaseException) -> bool:
    kind = type(error)
    if isinstance(error, PlaceError | DatasetError | MemoryError | ImportError):
        return True
    if isinstance(error, OSError):
        # Decoders raise it too, without a number; so do remote storages, but as a subclass.
        named = kind.__module__ == "builtins" and kind is not OSError
        return error.errno not in _OF_A_NAME if error.errno is not None else named
    if any(base.__name__ in _OF_A_DEVICE for base in kind.__mro__):
        return True
    runs_native = isinstance(error, RuntimeError) or kind.__module__ == "cv2"
    return runs_native and _DEVICE_TROUBLE.search(str(error)) is not None
