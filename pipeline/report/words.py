"""Captions, counted: how long they are, which words and which whole texts are commonest."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.report.histogram import Histogram, count

_MOST = 24
_REPEATED = 6
_ROWS_AT_ONCE = 65_536

# Words that stand in nearly every English caption and say nothing of a picture.
_LEFT_OUT = [
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "her", "his", "in",
    "into", "is", "it", "its", "of", "off", "on", "onto", "or", "out", "over", "that", "the",
    "their", "them", "there", "this", "to", "two", "up", "was", "while", "with",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Captions:
    """What the captions are.

    Attributes:
        total: samples.
        empty: samples whose caption is empty.
        distinct: different captions, the empty one not counted.
        length: words in a caption that is not empty.
        words: commonest words and in how many places they stand; the very commonest of English are
            left out.
        repeated: captions that more than one sample has, commonest first.
    """

    total: int
    empty: int
    distinct: int
    length: Histogram | None
    words: list[tuple[str, int]]
    repeated: list[tuple[str, int]]


def count_captions(captions: pa.ChunkedArray) -> Captions:
    """Count captions; a null one is an empty one."""
    texts = pc.utf8_trim_whitespace(pc.fill_null(captions, ""))
    said = texts.filter(pc.not_equal(texts, ""))
    whole = _tally([said])
    return Captions(
        total=len(captions),
        empty=len(captions) - len(said),
        distinct=whole.num_rows,
        length=count(pc.count_substring_regex(said, r"\S+")),
        words=_largest(_tally(_words(said)), _MOST),
        repeated=_largest(whole.filter(pc.greater(whole["counts"], 1)), _REPEATED),
    )


def _words(said: pa.ChunkedArray) -> list[pa.Array]:
    """Return for each block of rows its words with their counts, so that memory stays small."""
    parts = []
    for at in range(0, len(said), _ROWS_AT_ONCE):
        lower = pc.utf8_lower(said.slice(at, _ROWS_AT_ONCE).combine_chunks())
        words = pc.list_flatten(pc.split_pattern_regex(lower, r"[^\p{L}\p{N}'-]+"))
        words = pc.utf8_trim(words, "'-")
        usual = pc.is_in(words, pa.array(["", *_LEFT_OUT]))
        parts.append(words.filter(pc.invert(usual)))
    return parts


def _tally(parts: list[pa.Array]) -> pa.Table:
    """Count equal strings over all parts: a table of ``values`` and ``counts``."""
    counted = [part.value_counts() for part in parts]
    empty = pa.table({"values": pa.array([], pa.string()), "counts": pa.array([], pa.int64())})
    found = [pa.table({name: one.field(name) for name in empty.schema.names}) for one in counted]
    merged = pa.concat_tables([empty, *found]).group_by("values").aggregate([("counts", "sum")])
    return merged.rename_columns({"counts_sum": "counts"})


def _largest(tally: pa.Table, most: int) -> list[tuple[str, int]]:
    order = [("counts", "descending"), ("values", "ascending")]
    best = tally.take(pc.select_k_unstable(tally, most, sort_keys=order)) if len(tally) else tally
    rows = best.to_pylist()
    return [(row["values"], row["counts"]) for row in rows]
