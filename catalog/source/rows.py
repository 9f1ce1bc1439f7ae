"""One image as found: its row, filled from the bytes and from the texts beside them."""

import json
import math
from dataclasses import dataclass, field, replace
from typing import IO, Any

from catalog import storage
from catalog.errors import ImageError
from catalog.images import Header, decode, read_header
from catalog.sample import OK, failed, rejected
from catalog.source.near_duplicates import perceptual_hash

CAPTION_FIELDS = ("caption", "text", "TEXT", "prompt")

_HASHED_SIDE = 128  # pixels at least of the short side of a JPEG that is decoded for its hash
_HASHED_PIXELS = 100_000_000  # larger pictures are not decoded while scanning


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """One image as found; the fields are the columns of `catalog.tables.SOURCE`."""

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


def with_sidecars(row: SourceRow, texts: dict[str, bytes]) -> SourceRow:
    """Take what the .json beside an image says, and its caption from the .txt, which goes first."""
    fields: dict[str, Any] = {}
    if "json" in texts:
        try:
            found = json.loads(texts["json"])
            fields = found if isinstance(found, dict) else {}
        except (ValueError, RecursionError) as error:
            row = replace(row, detail=row.detail or f"sidecar .json is ignored: {error}"[:200])
    row = with_fields(row, fields)
    if "txt" in texts:
        row = replace(row, caption=texts["txt"].decode("utf-8-sig", errors="replace"))
    return row


def with_fields(row: SourceRow, fields: dict[str, Any]) -> SourceRow:
    """Take caption, popularity and all other finite numbers from a sidecar or from columns."""
    captions = (fields[name] for name in CAPTION_FIELDS if isinstance(fields.get(name), str))
    scores = {str(name): float(value) for name, value in fields.items() if _is_score(value)}
    return replace(
        row,
        caption=next((printable(text) for text in captions), None),
        popularity=scores.pop("popularity", None),
        scores={printable(name): scores[name] for name in sorted(scores)},
    )


def _is_score(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def printable(text: str) -> str:
    """Replace what UTF-8 cannot hold: lone surrogates from JSON escapes or raw file names."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
