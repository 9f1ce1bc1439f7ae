"""Filter expressions on what came with an image: ``pwatermark < 0.8 and aesthetic > 5``.

Names, numbers, comparisons, ``and``, ``or``, ``not``, ``+ - * /`` and ``is None``: Python's own
grammar reads them, and nothing is ever run. Anything else is refused.

A value that an image lacks is null, and what is compared with null is unknown, as in SQL: an image
is kept where the whole expression is true, not where it is unknown. ``x is None or x < 0.8`` keeps
the images that lack it.
"""

import ast
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from catalog.errors import FilterError

COLUMNS = ("width", "height", "length", "popularity")
"""Columns of a source that an expression may name, beside the scores that came with the images."""

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
}
_COMPUTE: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: pc.add,
    ast.Sub: pc.subtract,
    ast.Mult: pc.multiply,
    ast.Div: pc.divide,
}
_EXAMPLE = "for example: pwatermark < 0.8 and punsafe < 0.5 and aesthetic > 5"
_MOST_NODES = 500  # deeper expressions would end in Python's own recursion limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One of the terms that an expression joins with ``and``.

    Attributes:
        text: as it is written.
        breaks: of each row, whether it is false or unknown.
        value: of each row, the column where the clause compares one with a number; else null.
        threshold: that number, or None.
    """

    text: str
    breaks: pa.ChunkedArray
    value: pa.ChunkedArray
    threshold: float | None


def check(text: str) -> str:
    """Return an expression whose grammar is good; raises FilterError where it is not."""
    for node in _clauses(text):
        _check(node, text)
        if not _names(node):
            raise _refused(node, text, "it names no column")
    return text


def columns_of(source: pa.Table) -> list[str]:
    """Return the names that an expression may use on a table of `catalog.tables.SOURCE`."""
    keys: set[str] = set()
    for chunk in source["scores"].chunks:
        keys.update(pc.unique(chunk.keys).to_pylist())
    return sorted({*COLUMNS, *keys})


def apply(text: str, source: pa.Table) -> list[Clause]:
    """Judge every row of a source by each clause of an expression, in the order written.

    Raises:
        FilterError: the expression has an error, or names a column that no image has.
    """
    clauses = _clauses(check(text))
    known = columns_of(source)
    values = {name: _column(name, source, known, text) for node in clauses for name in _names(node)}
    return [_judge(node, values, len(source)) for node in clauses]


def _judge(node: ast.expr, values: dict[str, Any], rows: int) -> Clause:
    value, threshold = _told(node, values)
    return Clause(
        text=ast.unparse(node),
        breaks=pc.invert(pc.fill_null(_evaluate(node, values), False)),
        value=pa.nulls(rows, pa.float64()) if value is None else value,
        threshold=threshold,
    )


def _told(node: ast.expr, values: dict[str, Any]) -> tuple[Any, float | None]:
    """Return what a row of the ledger says of a clause like ``x < 0.8``: x, and 0.8."""
    match node:
        case ast.Compare(left=ast.Name(id=name), comparators=[ast.Constant(value=float(limit))]):
            return values[name], limit
        case ast.Compare(left=ast.Name(id=name), comparators=[ast.Constant(value=int(limit))]):
            return values[name], float(limit)
    return None, None


def _column(name: str, source: pa.Table, known: list[str], text: str) -> Any:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else ""
        raise FilterError(
            f"filter {text!r}: no image has a column {name!r}; {hint} there is: {', '.join(known)}"
        )
    if name in COLUMNS:
        return pc.cast(source[name], pa.float64())
    return pc.map_lookup(source["scores"], query_key=name, occurrence="first")


def _names(node: ast.expr) -> list[str]:
    return [found.id for found in ast.walk(node) if isinstance(found, ast.Name)]


def _clauses(text: str) -> list[ast.expr]:
    try:
        body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise FilterError(f"filter {text!r} is no expression; {_EXAMPLE}") from error
    if sum(1 for _ in ast.walk(body)) > _MOST_NODES:
        raise FilterError(f"a filter of {len(text):,} characters is too long; {_EXAMPLE}")
    match body:
        case ast.BoolOp(op=ast.And(), values=terms):
            return terms
    return [body]


def _check(node: ast.expr, text: str) -> None:
    """Refuse what is no true-or-false term of the grammar."""
    match node:
        case ast.BoolOp(values=terms):
            for term in terms:
                _check(term, text)
        case ast.UnaryOp(op=ast.Not(), operand=term):
            _check(term, text)
        case ast.Compare(left=left, ops=[ast.Is() | ast.IsNot()], comparators=[right]):
            if not isinstance(left, ast.Name) or not _is_none(right):
                raise _refused(node, text, "'is' asks whether a column has a value: x is None")
        case ast.Compare(left=left, ops=ops, comparators=others):
            if not all(type(op) in _COMPARE for op in ops):
                raise _refused(node, text, "compare with < <= > >= == != or is None")
            for operand in (left, *others):
                _check_number(operand, text)
        case _:
            raise _refused(node, text, "expected a comparison")


def _check_number(node: ast.expr, text: str) -> None:
    match node:
        case ast.Name():
            return
        case ast.Constant(value=value) if type(value) in (int, float):
            return
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            _check_number(operand, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _COMPUTE:
            _check_number(left, text)
            _check_number(right, text)
        case _:
            raise _refused(node, text, "expected a column or a number")


def _refused(node: ast.expr, text: str, why: str) -> FilterError:
    return FilterError(f"filter {text!r}: {ast.unparse(node)!r}: {why}; {_EXAMPLE}")


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _evaluate(node: ast.expr, values: dict[str, Any]) -> Any:
    """Return booleans with nulls; three-valued, so that unknown or true is true."""
    match node:
        case ast.BoolOp(op=op, values=terms):
            join = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
            return reduce(join, [_evaluate(term, values) for term in terms])
        case ast.UnaryOp(operand=term):
            return pc.invert(_evaluate(term, values))
        case ast.Compare(left=ast.Name(id=name), ops=[ast.Is()]):
            return pc.is_null(values[name])
        case ast.Compare(left=ast.Name(id=name), ops=[ast.IsNot()]):
            return pc.is_valid(values[name])
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [_number(operand, values) for operand in (left, *others)]
            made = [_COMPARE[type(op)](sides[at], sides[at + 1]) for at, op in enumerate(ops)]
            return reduce(pc.and_kleene, made)
    raise AssertionError(ast.dump(node))  # `check` lets nothing else through


def _number(node: ast.expr, values: dict[str, Any]) -> Any:
    match node:
        case ast.Name(id=name):
            return values[name]
        case ast.Constant(value=value):
            return pa.scalar(float(str(value)), pa.float64())
        case ast.UnaryOp(op=sign, operand=operand):
            made = _number(operand, values)
            return pc.negate(made) if isinstance(sign, ast.USub) else made
        case ast.BinOp(left=left, op=op, right=right):
            return _COMPUTE[type(op)](_number(left, values), _number(right, values))
    raise AssertionError(ast.dump(node))
