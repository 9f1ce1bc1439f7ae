"""A run's pictures of the same samples from step to step, and a grid of them.

RUN/signals/pictures/000400/<key>.png       what was made at step 400, of the first samples
RUN/signals/pictures/no_control/<key>.png   the same prompts and noise without control
RUN/plots/progress.png                      the pictures in columns, from the first step to the last
"""

import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from catalog.images import Image, decode_image
from catalog.png import encode_png
from catalog.publish.grid import draw_grid, enlarged
from catalog.storage import write_atomic
from training.errors import TrainingError
from training.measure.adherence import ProbeSample, References
from training.measure.convergence import Convergence
from training.watch.run_plots import PLOTS
from training.watch.signals import PICTURES, SIGNALS, ProbeRecord

SHOWN = 6
"""Samples whose pictures are kept."""

COLUMNS = 6
"""Steps in the grid."""


def keep_pictures(
    run: Path, step: int | None, samples: Sequence[ProbeSample], images: Sequence[Image]
) -> None:
    """Write the first pictures of a probe.

    Args:
        run: the run folder.
        step: optimizer steps done; None for pictures without control.
        samples: of the probe.
        images: a picture a sample.
    """
    for sample, image in list(zip(samples, images, strict=True))[:SHOWN]:
        path = _picture(run, step, sample.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(str(path), encode_png(image))


def forget_pictures(run: Path, after: int) -> None:
    """Delete the pictures of later steps than `after`."""
    for folder in (run / SIGNALS / PICTURES).glob("[0-9]*"):
        if int(folder.name) > after:
            shutil.rmtree(folder)


def draw_step_pictures(
    run: Path,
    samples: Sequence[ProbeSample],
    records: Sequence[ProbeRecord],
    references: References,
    convergence: Convergence | None,
) -> Path:
    """Draw conditions, pictures without control, those of some steps, photographs; return the PNG.

    Args:
        run: the run folder, with the pictures of all the probes.
        samples: of the probes.
        records: one a probe.
        references: what the scores stand beside.
        convergence: whose steps are shown in any case.
    """
    scores = {record.step: record.adherence for record in records}
    steps = choose_steps(sorted(scores), convergence)
    shown = samples[:SHOWN]
    cells = [
        enlarged(
            [
                sample.hint,
                *(read_picture(run, step, sample.key) for step in (None, *steps)),
                sample.image,
            ]
        )
        for sample in shown
    ]
    titles = [f"step {step:,}: {scores[step]:.2f}" for step in steps]
    ends = (f"no control: {references.baseline:.2f}", f"photograph: {references.real:.2f}")
    columns = ["condition", ends[0], *titles, ends[1]]
    captions = [sample.caption or "(no prompt)" for sample in shown]
    path = run / PLOTS / "progress.png"
    path.parent.mkdir(exist_ok=True)
    write_atomic(str(path), encode_png(draw_grid(cells, columns=columns, rows=captions)))
    return path


def choose_steps(
    steps: Sequence[int], convergence: Convergence | None, count: int = COLUMNS
) -> list[int]:
    """Choose up to `count` steps to show, ascending.

    The first, the last and those around the convergence are among them, the others spread evenly.

    Args:
        steps: those that there are, ascending.
        convergence: where the run began to obey.
        count: at least 4.
    """
    if len(steps) <= count:
        return list(steps)
    chosen = {steps[0], steps[-1]}
    if convergence is not None:
        chosen |= {convergence.before, convergence.step}
    while len(chosen) < count:  # where the gap is widest, its middle
        places = sorted(steps.index(step) for step in chosen)
        gaps = [(high - low, low) for low, high in pairwise(places)]
        width, low = max(gaps)
        chosen.add(steps[low + width // 2])
    return sorted(chosen)


def read_picture(run: Path, step: int | None, key: str) -> Image:
    """Return the picture that a probe made of a sample.

    Args:
        run: the run folder.
        step: optimizer steps done; None for the picture without control.
        key: of the sample.

    Raises:
        TrainingError: it is not there.
    """
    path = _picture(run, step, key)
    try:
        return decode_image(path.read_bytes())
    except FileNotFoundError as error:
        raise TrainingError(f"{run} has no picture {path.relative_to(run)} of its probe") from error


def _picture(run: Path, step: int | None, key: str) -> Path:
    name = "no_control" if step is None else f"{step:06d}"
    return run / SIGNALS / PICTURES / name / f"{key}.png"
