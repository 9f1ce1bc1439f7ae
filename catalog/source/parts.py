"""Where raw images come from: folders, WebDataset tars and parquet files, to one row an image.

`catalog.source.listing` finds the parts; `scan_part` does the reading, one part (a file, a tar, a
parquet) at a time, so that a caller can spread parts over threads or machines. Pixels are decoded
only where perceptual hashes are asked for, and nothing that a file can hold raises: an unusable
image is a row with its reason.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from catalog import storage
from catalog.source.parquets import ParquetRows, holds_images, read_parquet_row, scan_parquet
from catalog.source.presence import blame
from catalog.source.rows import SourceRow, lost, measure, with_said
from catalog.source.tars import scan_tar
from catalog.source.texts import LIMITS, read_text

Kind = Literal["file", "tar", "parquet", "metadata"]
"""``metadata``: a parquet named as a tar or folder beside it, of which it may only tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a source that is scanned in one go.

    Attributes:
        uri: of the file, in the stored form.
        kind: an image file, or a container of many images.
        sidecars: URIs of the .txt and .json beside an image file, by suffix.
        row: what a table of its folder says of an image file, JSON.
        label: URI of an image file's ground truth.
        unlabelled: why it has none, where it was looked for.
    """

    uri: str
    kind: Kind
    sidecars: dict[str, str] = field(default_factory=dict)
    row: str | None = None
    label: str | None = None
    unlabelled: str | None = None

    @property
    def uris(self) -> list[str]:
        """The part's own URI, then those of what lies beside it."""
        return [self.uri, *self.sidecars.values(), *([self.label] if self.label else [])]


def scan_part(
    part: Part,
    *,
    perceptual: bool = False,
    passed: Counter[str] | None = None,
    allowed: Sequence[str] = (),
) -> list[SourceRow]:
    """Read one part: hash and header of every image in it, with what lies beside it.

    Args:
        part: a file or a container of images.
        perceptual: decode each image for its perceptual hash as well.
        passed: counts what is seen in it and not used, by kind.
        allowed: stored URIs of folders below which a table's paths are followed, beside its own.

    Raises:
        PlaceError: what the part lies in cannot be read; it says nothing of the part.
    """
    passed = Counter() if passed is None else passed
    rows: list[SourceRow] = []
    try:
        if part.kind == "file":
            rows.append(_scan_file(part, perceptual))
        elif part.kind == "metadata" and not holds_images(part.uri):
            passed["tables beside the tar or folder that they tell of"] += 1
        elif part.kind == "tar":
            rows.extend(scan_tar(part.uri, perceptual=perceptual, passed=passed))
        else:
            found = scan_parquet(part.uri, perceptual=perceptual, passed=passed, allowed=allowed)
            rows.extend(found)
    except Exception as error:  # one file must not end the scan; its row names the class
        blame(error, part.uris)
        rows.append(lost(SourceRow(uri=part.uri), error))
    passed.update(kind for row in rows for kind in row.unused)
    return rows


def reader_of(rows: Iterable[Mapping[str, Any]]) -> Callable[[dict[str, Any]], bytes]:
    """Return what reads the images of these rows as `read_image` does, each thing once for all.

    A row group of a parquet table holds many images, and is one thing to read.
    """
    wanted = [(row["uri"], row["row"]) for row in rows if row["row"] is not None]
    if not wanted:
        return read_image
    tables = ParquetRows(wanted)

    def read(row: dict[str, Any]) -> bytes:
        return read_image(row) if row["row"] is None else tables.read(row["uri"], row["row"])

    return read


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
        said = {
            kind: read_text(kind, storage.read_bytes(uri, 0, LIMITS[kind] + 1))
            for kind, uri in part.sidecars.items()
        }
        if part.row is not None and "json" not in said:
            said["json"] = read_text("json", part.row.encode())
        with storage.open_binary(part.uri) as file:
            row = with_said(measure(row, file, perceptual=perceptual), said)
        if part.label is not None:
            row = replace(row, label=part.label, label_sha256=storage.sha256_file(part.label))
        elif part.unlabelled is not None:
            row = replace(row, detail=row.detail or part.unlabelled)
        return row
    except OSError as error:
        blame(error, part.uris)
        return lost(row, error)
