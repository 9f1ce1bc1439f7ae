"""The ledger's JSON column of drawn and measured values, read as columns.

Arrow parses the JSON in C++; Python looks at a few hundred rows only, to learn the fields.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pa_json

from catalog.errors import DatasetError

_LOOKED_AT = 512  # rows
_ROWS_AT_ONCE = 32_768
_BLOCK = 64 << 20  # bytes; one row must fit


def read_parameters(column: pa.ChunkedArray) -> dict[str, pa.Table]:
    """Parse the ``parameters`` of a manifest.

    Returns:
        By condition, in order of name: a table with a row for each row of `column` and a column for
        each value: double, bool or string, and ``list<double>`` for lists of numbers. Other values,
        such as people's keypoints, are left out. A value that a row lacks is null.

    Raises:
        DatasetError: a row is no JSON, or its values change type from row to row.
    """
    schema = _schema(column)
    if not len(schema) or not len(column):
        return {}
    try:
        parts = [_parse(column.slice(at, _ROWS_AT_ONCE), schema) for at in _starts(len(column))]
    except pa.ArrowInvalid as error:
        raise DatasetError(f"the ledger's parameters cannot be read as JSON: {error}") from error
    whole = pa.concat_tables(parts)
    return {field.name: _fields_of(whole[field.name], field.type) for field in schema}


def _starts(rows: int) -> range:
    return range(0, rows, _ROWS_AT_ONCE)


def _parse(column: pa.ChunkedArray, schema: pa.Schema) -> pa.Table:
    rows = pc.fill_null(column, "{}").combine_chunks()
    lines = pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), rows)
    text = pc.binary_join(lines, "\n")[0].as_buffer()
    return pa_json.read_json(
        pa.BufferReader(text),
        pa_json.ReadOptions(block_size=_BLOCK, use_threads=False),
        pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    ).select(schema.names)


def _fields_of(column: pa.ChunkedArray, kind: pa.StructType) -> pa.Table:
    return pa.table({field.name: pc.struct_field(column, field.name) for field in kind})


def _schema(column: pa.ChunkedArray) -> pa.Schema:
    """Learn conditions and their values from the first rows and rows spread over the rest."""
    spread = np.linspace(0, max(0, len(column) - 1), _LOOKED_AT).astype(np.int64)
    chosen = np.union1d(spread, np.arange(_LOOKED_AT))
    chosen = chosen[chosen < len(column)]
    found: dict[str, dict[str, pa.DataType]] = {}
    for text in column.take(pa.array(chosen)).to_pylist():
        for condition, values in _read_row(text).items():
            kinds = found.setdefault(condition, {})
            for name, value in values.items():
                if (kind := _kind(value)) is not None:
                    kinds.setdefault(name, kind)
    structs = {name: pa.struct(sorted(kinds.items())) for name, kinds in found.items() if kinds}
    return pa.schema(sorted(structs.items()))


def _read_row(text: str | None) -> dict[str, dict[str, Any]]:
    try:
        row = json.loads(text or "{}")
    except ValueError as error:
        raise DatasetError(f"the ledger's parameters cannot be read as JSON: {error}") from error
    return {name: values for name, values in row.items() if isinstance(values, dict)}


def _kind(value: object) -> pa.DataType | None:
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int | float):
        return pa.float64()
    if isinstance(value, str):
        return pa.string()
    if isinstance(value, list) and value and all(_kind(one) == pa.float64() for one in value):
        return pa.list_(pa.float64())
    return None
