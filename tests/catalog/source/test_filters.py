"""Filter expressions: what they mean, what null means, and what is refused before it can run."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog import tables
from catalog.errors import FilterError
from catalog.source.filters import apply, check, columns_of


def source(*scores: dict[str, float], **columns: list[Any]) -> pa.Table:
    rows = [{"scores": list(one.items())} for one in scores]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return pa.Table.from_pylist(rows, schema=tables.SOURCE)


def kept(expression: str, table: pa.Table) -> list[bool]:
    broken = [clause.breaks.to_pylist() for clause in apply(expression, table)]
    return [not any(row) for row in zip(*broken, strict=True)]


LAION = source(
    {"pwatermark": 0.1, "punsafe": 0.1, "aesthetic": 6},
    {"pwatermark": 0.9, "punsafe": 0.1, "aesthetic": 6},
    {"pwatermark": 0.1, "punsafe": 0.1, "aesthetic": 5},
    {"punsafe": 0.1, "aesthetic": 6},
    {},
    width=[100, 100, 100, 100, None],
    height=[50, 50, 200, 50, None],
)


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("pwatermark < 0.8 and punsafe < 0.5 and aesthetic > 5", [1, 0, 0, 0, 0]),
        ("pwatermark < 0.8", [1, 0, 1, 0, 0]),
        ("not pwatermark < 0.8", [0, 1, 0, 0, 0]),
        ("pwatermark is None or pwatermark < 0.8", [1, 0, 1, 1, 1]),
        ("pwatermark is not None", [1, 1, 1, 0, 0]),
        ("pwatermark > 0.8 or aesthetic == 6", [1, 1, 0, 1, 0]),
        ("0.05 < pwatermark <= 0.1", [1, 0, 1, 0, 0]),
        ("width / height >= 2", [1, 1, 0, 1, 0]),
        ("-aesthetic + 1 != -5", [0, 0, 1, 0, 0]),
        ("(width * height) > 5_000 and aesthetic <= 5.0", [0, 0, 1, 0, 0]),
        ("1 / (aesthetic - 5) > 0", [1, 1, 1, 1, 0]),  # by zero is infinity
    ],
)
def test_what_an_expression_keeps(expression: str, wanted: list[int]) -> None:
    assert kept(expression, LAION) == [bool(one) for one in wanted]


VALUES = st.none() | st.floats(-2, 2, width=16)
TERMS = st.sampled_from(["a < 0", "b >= 1", "a is None", "not b < a", "a + b > 0.5", "a == b"])


def _python(expression: str, a: float | None, b: float | None) -> bool | None:
    """Evaluate with Python's own operators, unknown where a side of a comparison is."""
    known = {
        "a < 0": None if a is None else a < 0,
        "b >= 1": None if b is None else b >= 1,
        "a is None": a is None,
        "not b < a": None if a is None or b is None else not b < a,
        "a + b > 0.5": None if a is None or b is None else a + b > 0.5,
        "a == b": None if a is None or b is None else a == b,
    }
    left, word, right = expression.partition(" and " if " and " in expression else " or ")
    if not word:
        return known[left]
    pair = [known[left], known[right]]
    decides = word == " or "
    if decides in pair:
        return decides
    return None if None in pair else not decides


@given(TERMS, st.sampled_from([" and ", " or "]), TERMS, VALUES, VALUES)
def test_it_means_what_it_means_in_sql(
    left: str, word: str, right: str, a: float | None, b: float | None
) -> None:
    scores = {name: value for name, value in (("a", a), ("b", b)) if value is not None}
    table = source(scores, {"a": 1.0, "b": 1.0})
    expression = left + word + right
    assert kept(expression, table)[0] == (_python(expression, a, b) is True)


def test_a_clause_tells_its_value_and_limit() -> None:
    first, second = apply("pwatermark < 0.8 and width * 2 > 10", LAION)
    assert (first.text, first.threshold) == ("pwatermark < 0.8", 0.8)
    assert first.value.to_pylist() == [0.1, 0.9, 0.1, None, None]
    assert (second.threshold, second.value.to_pylist()) == (None, [None] * 5)


def test_columns_are_those_that_came_with_the_images() -> None:
    assert columns_of(LAION) == [
        *("aesthetic", "height", "length", "popularity", "punsafe", "pwatermark", "width"),
    ]


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "no expression"),
        ("pwatermark <", "no expression"),
        ("pwatermark", "expected a comparison"),
        ("pwatermark = 1", "no expression"),
        ("1 < 2", "names no column"),
        ("aesthetic > 5 and 2 > 1", "names no column"),
        ("__import__('os').system('true')", "expected a comparison"),
        ("__import__('os') < 1", "expected a column or a number"),
        ("().__class__ < aesthetic", "expected a column or a number"),
        ("aesthetic.real < 1", "expected a column or a number"),
        ("aesthetic[0] < 1", "expected a column or a number"),
        ("(lambda: aesthetic)() < 1", "expected a column or a number"),
        ("[a for a in aesthetic] < 1", "expected a column or a number"),
        ("aesthetic < 'x'", "expected a column or a number"),
        ("aesthetic < True", "expected a column or a number"),
        ("aesthetic ** 9 < 1", "expected a column or a number"),
        ("aesthetic in (1, 2)", "compare with"),
        ("aesthetic is 5", "asks whether a column has a value"),
        ("(a := 5) < aesthetic", "expected a column or a number"),
        ("aesthetic < 1 if width < 2 else width < 3", "expected a comparison"),
        ("(" * 400 + "width < 1" + ")" * 400, "no expression"),
        (" or ".join(["width < 1"] * 300), "too long"),
    ],
)
def test_what_is_no_filter_is_refused(expression: str, said: str) -> None:
    with pytest.raises(FilterError, match=said):
        check(expression)


def test_an_unknown_column_gets_a_guess() -> None:
    with pytest.raises(FilterError, match="column 'asthetic'; did you mean 'aesthetic'"):
        apply("asthetic > 5", LAION)
    with pytest.raises(FilterError, match="there is: aesthetic, height"):
        apply("qqqq > 5", LAION)
