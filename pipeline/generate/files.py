"""What `generate` writes: pictures, a grid that says what each is, and a record of every setting.

OUT/<name>-seed<seed>.png    a picture; <name>-seed<seed>.default.png: the first of two passes
OUT/<name>.<condition>.png   a map that was detected
OUT/grid.png                 all of it, labelled
OUT/generated.json           settings; prompts and ControlNet calls of every row
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from catalog.images import Image
from catalog.png import encode_png
from catalog.publish.grid import draw_grid, enlarged
from catalog.storage import write_atomic
from pipeline.generate.config import GenerateConfig
from pipeline.generate.inputs import Row
from training.sample.repaint import Edit
from training.sample.sampler import Sampled

GRID = "grid.png"
RECORD = "generated.json"

_VERSIONS = ("torch", "diffusers", "transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """The pictures of one prompt mode for one row, one a seed.

    Attributes:
        mode: of the prompts.
        prompts: one a picture.
        images: one a seed.
        controlnet_calls: forward passes of all ControlNets for a picture; its batch shares them.
    """

    mode: str
    prompts: list[str]
    images: list[Image]
    controlnet_calls: int


def pass_of(mode: str, prompts: list[str], sampled: Sampled) -> Pass:
    """Return the pass that one batch makes."""
    calls = sampled.controlnet_calls
    return Pass(mode=mode, prompts=prompts, images=sampled.images, controlnet_calls=calls)


def joined(batches: Sequence[Sequence[Pass]]) -> list[Pass]:
    """Join the passes of several batches of seeds, which all have the same modes and calls."""
    return [
        replace(
            parts[0],
            prompts=[prompt for part in parts for prompt in part.prompts],
            images=[image for part in parts for image in part.images],
        )
        for parts in zip(*batches, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What was written.

    Attributes:
        grid: path of the labelled grid.
        record: content of the file beside it.
    """

    grid: Path
    record: dict[str, Any]

    @property
    def controlnet_calls(self) -> int:
        """Forward passes of all ControlNets for one picture; all pictures take as many."""
        return int(self.record["rows"][0]["passes"][0]["controlnet_calls"])


def write_row(config: GenerateConfig, row: Row, passes: Sequence[Pass]) -> None:
    """Write the pictures of one row, and the maps that were detected for it."""
    for condition, data in row.detected.items():
        (config.out / _map_file(row, condition)).write_bytes(data)
    for one in passes:
        for seed, image in zip(config.seed, one.images, strict=True):
            (config.out / _file(row, seed, one, passes)).write_bytes(encode_png(image))


def write_summary(
    config: GenerateConfig, rows: Sequence[Row], made: Sequence[Sequence[Pass]], edit: Edit | None
) -> Made:
    """Write the grid and the record of all rows, each with its passes."""
    write_grid(config, rows, made, edit)
    record = {
        "settings": config.model_dump(mode="json"),
        "versions": {name: version(name) for name in _VERSIONS},
        "rows": [_row_record(config, *pair) for pair in zip(rows, made, strict=True)],
    }
    write_atomic(str(config.out / RECORD), json.dumps(record, indent=2).encode())
    return Made(grid=config.out / GRID, record=record)


def write_grid(
    config: GenerateConfig, rows: Sequence[Row], made: Sequence[Sequence[Pass]], edit: Edit | None
) -> None:
    """Write what was given and what was made, a row each, with the prompt under each picture."""
    given = [_given(row, edit) for row in rows]
    cells, notes = [], []
    for shown, passes in zip(given, made, strict=True):
        pictures = [image for one in passes for image in one.images]
        cells.append(enlarged([*shown.values(), *pictures]))
        prompts = [prompt or "no prompt" for one in passes for prompt in one.prompts]
        notes.append([""] * len(shown) + prompts)
    modes = [f"{one.mode}, " for one in made[0]] if len(made[0]) > 1 else [""]
    titles = [*given[0], *(f"{mode}seed {seed}" for mode in modes for seed in config.seed)]
    page = draw_grid(cells, columns=titles, rows=[row.name for row in rows], notes=notes)
    (config.out / GRID).write_bytes(encode_png(page))


def _given(row: Row, edit: Edit | None) -> dict[str, Image]:
    """Return what a row was made from, by title."""
    shown = {} if row.source is None else {"source": row.source}
    shown |= dict(zip(row.titles, row.hints, strict=True))
    if edit is not None:
        shown |= {"edited": edit.source, "mask": np.repeat(edit.mask[:, :, None], 3, axis=2)}
    return shown


def _row_record(config: GenerateConfig, row: Row, passes: Sequence[Pass]) -> dict[str, Any]:
    def pictures(one: Pass) -> list[dict[str, Any]]:
        pairs = zip(config.seed, one.prompts, strict=True)
        return [
            {"file": _file(row, seed, one, passes), "seed": seed, "prompt": prompt}
            for seed, prompt in pairs
        ]

    return {
        "name": row.name,
        "detected": [_map_file(row, condition) for condition in row.detected],
        "passes": [
            {
                "prompt_mode": one.mode,
                "controlnet_calls": one.controlnet_calls,
                "pictures": pictures(one),
            }
            for one in passes
        ],
    }


def _file(row: Row, seed: int, one: Pass, passes: Sequence[Pass]) -> str:
    middle = "" if one is passes[-1] else f".{one.mode}"
    return f"{row.name}-seed{seed}{middle}.png"


def _map_file(row: Row, condition: str) -> str:
    return f"{row.name}.{condition}.png"
