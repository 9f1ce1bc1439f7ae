"""One image as found: its row, filled from the bytes and from the texts beside them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import IO

from catalog import storage
from catalog.errors import ImageError
from catalog.images import Header, decode, read_header
from catalog.sample import OK, failed, rejected
from catalog.source.near_duplicates import perceptual_hash
from catalog.source.texts import Said, printable

_HASHED_SIDE = 128  # pixels at least of the short side of a JPEG that is decoded for its hash
_HASHED_PIXELS = 100_000_000  # larger pictures are not decoded while scanning


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """One image as found; the fields are the columns of `catalog.tables.SOURCE`, but for `unused`.

    That is what lay beside it and was not used, by kind; it is counted, not kept.
    """

    uri: str
    status: str = OK
    rank: int | None = None
    offset: int | None = None
    row: int | None = None
    length: int | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    format: str | None = None
    caption: str | None = None
    label: str | None = None
    label_sha256: str | None = None
    popularity: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    phash: int | None = None
    against: str | None = None
    value: float | None = None
    threshold: float | None = None
    detail: str | None = None
    unused: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[str, int]:
        """The stable order of a source: by URI, then by place in the container."""
        return self.uri, next((at for at in (self.offset, self.row) if at is not None), 0)


def measure(row: SourceRow, file: IO[bytes], *, perceptual: bool = False) -> SourceRow:
    """Fill in hash, length and header; a broken picture becomes a rejected row with its hash.

    With `perceptual` the picture is decoded too, small, for its perceptual hash; one that cannot be
    decoded gets none, and is judged where it is annotated.
    """
    sha256 = storage.sha256_stream(file)
    row = replace(row, sha256=sha256, length=file.tell())
    file.seek(0)
    try:
        header: Header = read_header(file)
    except ImageError as error:
        return rejected_row(row, error)
    row = replace(row, width=header.width, height=header.height, format=header.format)
    return _with_perceptual_hash(row, file) if perceptual else row


def _with_perceptual_hash(row: SourceRow, file: IO[bytes]) -> SourceRow:
    if (row.width or 0) * (row.height or 0) > _HASHED_PIXELS:
        return row
    file.seek(0)
    try:
        pixels = decode(file.read(), at_least=_HASHED_SIDE).pixels
    except ImageError:
        return row
    return replace(row, phash=perceptual_hash(pixels))


def rejected_row(row: SourceRow, error: ImageError) -> SourceRow:
    """Return the row of an image that a rule rejects."""
    rejection = rejected(error.rule, value=error.value, detail=str(error))
    return replace(row, status=rejection.status, value=rejection.value, detail=rejection.detail)


def lost(row: SourceRow, error: Exception) -> SourceRow:
    """Return the row of a file that could not be read."""
    rejection = failed(error)
    return replace(
        row, status=rejection.status, detail=rejection.detail and printable(rejection.detail)
    )


def with_said(row: SourceRow, said: Mapping[str, Said]) -> SourceRow:
    """Take what lies beside an image: its caption from the .txt where that is not blank.

    Args:
        row: of the image.
        said: by kind: ``json`` (or columns) and ``txt``.
    """
    captions = [said[kind].caption for kind in ("txt", "json") if kind in said]
    texts = [text for text in captions if text is not None]
    fields = said.get("json", Said())
    return replace(
        row,
        caption=next((text for text in texts if text.strip()), next(iter(texts), None)),
        popularity=fields.popularity,
        scores=fields.scores,
        unused=tuple(kind for one in said.values() for kind in one.unused),
        detail=row.detail or next((one.detail for one in said.values() if one.detail), None),
    )
