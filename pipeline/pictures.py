"""Pictures from a trained ControlNet, written with a grid that says what each is."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from catalog.errors import ImageError
from catalog.images import Image, decode_image, encode_png
from pipeline.errors import UsageError
from training.controlnet import Base, load_controlnet
from training.grid import draw_grid
from training.sampling import generate


def write_pictures(
    base: Base,
    controlnet: str,
    images: Sequence[Path],
    out: Path,
    *,
    prompt: str,
    seeds: Sequence[int],
    steps: int,
    guidance_scale: float,
) -> Path:
    """Sample one picture for each condition map and seed.

    Writes ``out/<map's name>-seed<seed>.png`` and ``out/grid.png``; returns the grid's path.

    Raises:
        UsageError: a map cannot be read.
        TrainingError: a ControlNet or size that cannot be sampled with.
    """
    hints = [_read(path) for path in images]
    network = load_controlnet(controlnet)
    out.mkdir(parents=True, exist_ok=True)
    rows: list[list[Image]] = []
    for path, hint in zip(images, hints, strict=True):
        made = generate(
            base,
            network,
            hint=hint,
            prompt=prompt,
            seeds=seeds,
            steps=steps,
            guidance_scale=guidance_scale,
        )
        for seed, picture in zip(seeds, made, strict=True):
            (out / f"{path.stem}-seed{seed}.png").write_bytes(encode_png(picture))
        rows.append([hint, *made])
    columns = ["condition", *(f"seed {seed}: {prompt or 'no prompt'}" for seed in seeds)]
    return write_grid(out / "grid.png", rows, columns, [path.stem for path in images])


def write_grid(
    path: Path, cells: Sequence[Sequence[np.ndarray]], columns: Sequence[str], rows: Sequence[str]
) -> Path:
    """Draw a labelled grid and write it as PNG; return its path."""
    path.write_bytes(encode_png(draw_grid(cells, columns=columns, rows=rows)))
    return path


def _read(path: Path) -> Image:
    try:
        return decode_image(path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"--image {path} does not exist") from None
    except ImageError as error:
        raise UsageError(f"--image {path} is no usable image: {error}") from error
