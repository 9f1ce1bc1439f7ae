"""Where raw images come from: folders, WebDataset tars and parquet files, to one row an image.

`catalog.source.listing` finds the parts; `scan_part` does the reading, one part (a file, a tar, a
parquet) at a time, so that a caller can spread parts over threads or machines. Pixels are decoded
only where perceptual hashes are asked for, and nothing that a file can hold raises: an unusable
image is a row with its reason.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from catalog import storage
from catalog.source.containers import SIDECAR_LIMIT, read_parquet_row, scan_parquet, scan_tar
from catalog.source.presence import blame
from catalog.source.rows import SourceRow, lost, measure, with_sidecars

Kind = Literal["file", "tar", "parquet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a source that is scanned in one go.

    Attributes:
        uri: of the file, in the stored form.
        kind: an image file, or a container of many images.
        sidecars: URIs of the .txt and .json beside an image file, by suffix.
        label: URI of an image file's ground truth.
    """

    uri: str
    kind: Kind
    sidecars: dict[str, str] = field(default_factory=dict)
    label: str | None = None

    @property
    def uris(self) -> list[str]:
        """The part's own URI, then those of what lies beside it."""
        return [self.uri, *self.sidecars.values(), *([self.label] if self.label else [])]


def scan_part(part: Part, *, perceptual: bool = False) -> list[SourceRow]:
    """Read one part: hash and header of every image in it, with what lies beside it.

    Args:
        part: a file or a container of images.
        perceptual: decode each image for its perceptual hash as well.

    Raises:
        PlaceError: what the part lies in cannot be read; it says nothing of the part.
    """
    rows: list[SourceRow] = []
    try:
        if part.kind == "file":
            rows.append(_scan_file(part, perceptual))
        else:
            read = scan_tar if part.kind == "tar" else scan_parquet
            rows.extend(read(part.uri, perceptual=perceptual))
    except Exception as error:  # one file must not end the scan; its row names the class
        blame(error, part.uris)
        rows.append(lost(SourceRow(uri=part.uri), error))
    return rows


def read_image(row: dict[str, Any]) -> bytes:
    """Return the encoded bytes of the image that a source or plan row names."""
    if row["row"] is not None:
        return read_parquet_row(row["uri"], row["row"])
    if row["offset"] is not None:
        return storage.read_bytes(row["uri"], row["offset"], row["length"])
    return storage.read_bytes(row["uri"])


def _scan_file(part: Part, perceptual: bool) -> SourceRow:
    row = SourceRow(uri=part.uri)
    try:
        texts = {
            end: storage.read_bytes(uri, 0, SIDECAR_LIMIT) for end, uri in part.sidecars.items()
        }
        with storage.open_binary(part.uri) as file:
            row = with_sidecars(measure(row, file, perceptual=perceptual), texts)
        if part.label is not None:
            row = replace(row, label=part.label, label_sha256=storage.sha256_file(part.label))
        return row
    except OSError as error:
        blame(error, part.uris)
        return lost(row, error)
