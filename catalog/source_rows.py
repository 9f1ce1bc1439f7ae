"""One image as found: its row, filled from the bytes and from the texts beside them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import IO, Any

import pyarrow as pa

from catalog import storage
from catalog.errors import ImageError
from catalog.images import Header, read_header
from catalog.sample import OK, failed, rejected
from catalog.tables import SOURCE

CAPTION_FIELDS = ("caption", "text", "TEXT", "prompt")


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
    value: float | None = None
    threshold: float | None = None
    detail: str | None = None

    @property
    def place(self) -> tuple[str, int]:
        """The stable order of a source: by URI, then by place in the container."""
        return self.uri, next((at for at in (self.offset, self.row) if at is not None), 0)


def to_table(rows: Sequence[SourceRow]) -> pa.Table:
    """Return rows as a table of `catalog.tables.SOURCE`, in their order."""
    columns = {f.name: [getattr(row, f.name) for row in rows] for f in SOURCE}
    columns["scores"] = [list(scores.items()) for scores in columns["scores"]]
    return pa.table(columns, schema=SOURCE)


def measure(row: SourceRow, file: IO[bytes]) -> SourceRow:
    """Fill in hash, length and header; a broken picture becomes a rejected row with its hash."""
    sha256 = storage.sha256_stream(file)
    row = replace(row, sha256=sha256, length=file.tell())
    file.seek(0)
    try:
        header: Header = read_header(file)
    except ImageError as error:
        return judged(row, error)
    return replace(row, width=header.width, height=header.height, format=header.format)


def judged(row: SourceRow, error: ImageError) -> SourceRow:
    """Return the row of an image that a rule rejects."""
    judgement = rejected(error.rule, value=error.value, detail=str(error))
    return replace(row, status=judgement.status, value=judgement.value, detail=judgement.detail)


def lost(row: SourceRow, error: Exception) -> SourceRow:
    """Return the row of a file that could not be read."""
    judgement = failed(error)
    return replace(
        row, status=judgement.status, detail=judgement.detail and printable(judgement.detail)
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
