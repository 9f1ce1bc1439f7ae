"""A view as plain files, for trainers that read folders.

images/<key>.jpg        the picture (or .png), with its caption in <key>.txt beside it
conditions/<name>/<key>.png
metadata.jsonl          a row an image, for Hugging Face's ImageFolder
paths.jsonl             the same by absolute paths, for diffusers' FLUX scripts and musubi-tuner

No name has "train" or "test" in it, by which ImageFolder would tell splits apart.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from catalog.dataset.dataset import View
from catalog.dataset.materialize import require_empty
from catalog.errors import CatalogError
from catalog.sample import Sample

IMAGES, CONDITIONS = "images", "conditions"
_EVERY = 1000


def write_folders(
    view: View,
    out: Path,
    *,
    condition: str | None = None,
    beside: Callable[[Sample], None] | None = None,
) -> Iterator[int]:
    """Write a view's samples, verified and in order; yield how many are written now and then.

    Args:
        view: the samples.
        out: an empty or new local folder.
        condition: which map is the ``conditioning_image``; None for the only one.
        beside: is given each sample, once its folders stand, to write more of it.

    Raises:
        CatalogError: `out` holds something already, or there is no such condition, or several.
        CorruptSampleError: a stored sample is not the committed one.
    """
    require_empty(out)
    chosen = choose_condition(view.conditions, condition)
    (out / IMAGES).mkdir(parents=True)
    for name in view.conditions:
        (out / CONDITIONS / name).mkdir(parents=True)
    with (out / "metadata.jsonl").open("w") as hugging, (out / "paths.jsonl").open("w") as paths:
        for index in range(len(view)):
            sample = view.read(index)
            _write(sample, out, chosen, hugging, paths)
            if beside is not None:
                beside(sample)
            if (index + 1) % _EVERY == 0 or index + 1 == len(view):
                yield index + 1


def choose_condition(conditions: tuple[str, ...], asked: str | None) -> str:
    """Return the condition that trainers are shown; raises CatalogError where none is chosen."""
    if asked is None and len(conditions) == 1:
        return conditions[0]
    if asked not in conditions:
        known = ", ".join(conditions) or "none"
        raise CatalogError(f"choose the condition that trainers are shown, of: {known}")
    return asked


def _write(sample: Sample, out: Path, chosen: str, hugging: IO[str], paths: IO[str]) -> None:
    image = f"{IMAGES}/{sample.key}.{sample.image_format}"
    (out / image).write_bytes(sample.image)
    (out / IMAGES / f"{sample.key}.txt").write_text(sample.caption, encoding="utf-8")
    for name, data in sample.conditions.items():
        (out / CONDITIONS / name / f"{sample.key}.png").write_bytes(data)
    hint = f"{CONDITIONS}/{chosen}/{sample.key}.png"
    row = {"file_name": image, "conditioning_image_file_name": hint, "text": sample.caption}
    hugging.write(f"{json.dumps(row)}\n")
    root = os.path.abspath(out)
    image, hint = f"{root}/{image}", f"{root}/{hint}"
    diffusers = {"image": image, "conditioning_image": hint, "text": sample.caption}
    musubi = {"image_path": image, "control_path": hint, "caption": sample.caption}
    paths.write(f"{json.dumps(diffusers | musubi)}\n")
