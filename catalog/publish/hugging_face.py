"""A view as parquet files with the columns that diffusers' training scripts take.

data/train-00000-of-00003.parquet    columns image, conditioning_image, text; rows in rank order

``load_dataset(FOLDER)`` reads them as RGB, here or after ``hf upload``. The bytes of pictures and
maps are those of the shards.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from catalog.dataset.dataset import View
from catalog.dataset.materialize import require_empty
from catalog.publish.folders import choose_condition
from catalog.sample import Sample

_ROW_GROUP = 100  # samples; a hub's viewer reads one at a time

_RGB = {"mode": "RGB", "_type": "Image"}
_FEATURES = {
    "image": _RGB,
    "conditioning_image": _RGB,
    "text": {"dtype": "string", "_type": "Value"},
}
_FILE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
_SCHEMA = pa.schema(
    {"image": _FILE, "conditioning_image": _FILE, "text": pa.string()},
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)


def write_parquet(
    view: View, out: Path, *, condition: str | None = None, samples_per_file: int = 1000
) -> Iterator[int]:
    """Write a view's samples, verified and in order; yield how many are written after each file.

    Args:
        view: the samples.
        out: an empty or new local folder.
        condition: which map is the ``conditioning_image``; None for the only one.
        samples_per_file: at most.

    Raises:
        CatalogError: `out` holds something already, or there is no such condition, or several.
        CorruptSampleError: a stored sample is not the committed one.
    """
    require_empty(out)
    chosen = choose_condition(view.conditions, condition)
    (out / "data").mkdir(parents=True)
    files = -(-len(view) // samples_per_file)
    for number in range(files):
        name = f"train-{number:05}-of-{files:05}.parquet"
        rows = range(number * samples_per_file, min((number + 1) * samples_per_file, len(view)))
        with pq.ParquetWriter(out / "data" / name, _SCHEMA) as writer:
            for first in range(rows.start, rows.stop, _ROW_GROUP):
                group = range(first, min(first + _ROW_GROUP, rows.stop))
                made = [_row(view.read(index), chosen) for index in group]
                writer.write_table(pa.Table.from_pylist(made, schema=_SCHEMA))
        yield rows.stop


def _row(sample: Sample, chosen: str) -> dict[str, Any]:
    image = {"bytes": sample.image, "path": f"{sample.key}.{sample.image_format}"}
    hint = {"bytes": sample.conditions[chosen], "path": f"{sample.key}.{chosen}.png"}
    return {"image": image, "conditioning_image": hint, "text": sample.caption}
