"""What a trained run is worth, on samples that it did not see: a table, a grid, one JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from catalog.images import Image
from catalog.png import encode_png
from catalog.publish.grid import draw_grid, enlarged
from catalog.storage import write_atomic
from training.errors import DataError
from training.measure.adherence import (
    AdherenceProbe,
    AdherenceScore,
    normalised,
)
from training.measure.picture_quality import (
    ClipScore,
    Inception,
    Missing,
    few_samples,
    frechet_distance,
)
from training.model.base import Base
from training.sample.for_probes import Sampler, reconstruct

GENERATED = "generated"
SHUFFLED = "another sample's condition"
UNCONTROLLED = "no control"
RECONSTRUCTED = "through the autoencoder"
REAL = "photographs"

GRID_ROWS = 8
"""Samples shown at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one kind of picture does.

    Attributes:
        pictures: which.
        mean: adherence, in the metric's unit, over the samples.
        std: its standard deviation over the samples.
        normalised: the mean between no control, 0, and the photographs, 1.
        clip_score: of pictures with their captions, 0..100; None where not measured.
        fid: to the photographs; None where not measured.
    """

    pictures: str
    mean: float
    std: float
    normalised: float
    clip_score: float | None = None
    fid: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The figures of an evaluation.

    Attributes:
        metric: of adherence, with its unit.
        higher_is_better: whether obedience raises it.
        rows: a kind of picture each.
        per_sample: adherence of the generated pictures by the sample's key.
        notes: what was not measured, and what to bear in mind.
        settings: what was evaluated, and how; JSON types.
    """

    metric: str
    higher_is_better: bool
    rows: tuple[Row, ...]
    per_sample: Mapping[str, float]
    notes: tuple[str, ...]
    settings: Mapping[str, Any]

    def cells(self) -> list[tuple[str, ...]]:
        """Return the table as text: a row a kind of picture, without the header."""
        return [
            (
                row.pictures,
                f"{row.mean:.3f}",
                f"{row.std:.3f}",
                f"{row.normalised:.3f}",
                _or_dash(row.clip_score),
                _or_dash(row.fid),
            )
            for row in self.rows
        ]

    def to_markdown(self) -> str:
        """Return a table with the notes below it."""
        better = "higher" if self.higher_is_better else "lower"
        metric = f"{self.metric} ({better} is better)"
        table = [
            ("pictures", metric, "std", "normalised", "CLIP score", "FID"),
            ("---", *["---:"] * 5),
            *self.cells(),
        ]
        settings = [f"- {name}: {value}" for name, value in self.settings.items()]
        lines = [f"# Evaluation of {self.settings.get('run', 'a run')}", "", *settings, ""]
        lines += [f"| {' | '.join(row)} |" for row in table]
        notes = ["Normalised: 0 without control, 1 for the photographs.", *self.notes]
        return "\n".join([*lines, *(f"\n{note}" for note in notes), ""])


def evaluate(
    probe: AdherenceProbe,
    controlled: Sampler,
    uncontrolled: Sampler,
    base: Base,
    *,
    clip: ClipScore | Missing,
    inception: Inception | Missing,
    settings: Mapping[str, Any],
    batch_size: int = 8,
) -> tuple[Evaluation, Image]:
    """Measure pictures of the probe's samples; return the figures, and a grid to look at.

    Args:
        probe: held-out samples.
        controlled: makes pictures as the run does.
        uncontrolled: makes them with the base alone.
        base: whose autoencoder the photographs go through.
        clip: for the CLIP score.
        inception: for the FID.
        settings: what to write down beside the figures; JSON types.
        batch_size: pictures that are made at once.

    Raises:
        DataError: the photographs score no better than pictures without control.
    """
    scores, notes = _measure(probe, controlled, uncontrolled, base, batch_size)
    evaluation = Evaluation(
        metric=probe.metric.name,
        higher_is_better=probe.metric.higher_is_better,
        rows=_rows(probe, scores, clip, inception),
        per_sample=dict(
            zip([sample.key for sample in probe.samples], scores[GENERATED].per_sample, strict=True)
        ),
        notes=(*notes, *_notes(clip, inception, len(probe.samples))),
        settings=settings,
    )
    return evaluation, grid(probe, scores)


def write_evaluation(folder: Path, evaluation: Evaluation, picture: Image) -> None:
    """Write evaluation.json, evaluation.md and grid.png into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(asdict(evaluation), indent=2).encode() + b"\n"
    write_atomic(str(folder / "evaluation.json"), content)
    write_atomic(str(folder / "evaluation.md"), evaluation.to_markdown().encode())
    write_atomic(str(folder / "grid.png"), encode_png(picture))


def grid(probe: AdherenceProbe, scores: Mapping[str, AdherenceScore]) -> Image:
    """Draw condition, photograph, no control and generated for the first samples."""
    shown = probe.samples[:GRID_ROWS]
    kinds = (REAL, UNCONTROLLED, GENERATED)
    cells = [
        enlarged([sample.hint, *(scores[kind].images[at] for kind in kinds)])
        for at, sample in enumerate(shown)
    ]
    notes = [
        ["", *(f"{scores[kind].per_sample[at]:.2f}" for kind in kinds)] for at in range(len(shown))
    ]
    captions = [sample.caption or "(no prompt)" for sample in shown]
    return draw_grid(cells, columns=["condition", *kinds], rows=captions, notes=notes)


def _measure(
    probe: AdherenceProbe,
    controlled: Sampler,
    uncontrolled: Sampler,
    base: Base,
    batch_size: int,
) -> tuple[dict[str, AdherenceScore], list[str]]:
    photographs = [sample.image for sample in probe.samples]
    real = probe.measure_images(photographs)
    free = probe.measure(uncontrolled, batch_size=batch_size)
    normalised(free.mean, free.mean, real.mean)  # refuses what tells nothing before all the rest
    scores, notes = {GENERATED: probe.measure(controlled, batch_size=batch_size)}, []
    try:
        scores[SHUFFLED] = probe.measure_shuffled(controlled, batch_size=batch_size)
    except DataError as error:
        notes.append(f"No shuffled conditions: {error}.")
    scores[UNCONTROLLED] = free
    scores[RECONSTRUCTED] = probe.measure_images(reconstruct(base, photographs))
    scores[REAL] = real
    return scores, notes


def _rows(
    probe: AdherenceProbe,
    scores: Mapping[str, AdherenceScore],
    clip: ClipScore | Missing,
    inception: Inception | Missing,
) -> tuple[Row, ...]:
    prompts = [sample.caption for sample in probe.samples]
    fids = {} if isinstance(inception, Missing) else _fids(inception, scores)
    return tuple(
        Row(
            pictures=name,
            mean=score.mean,
            std=score.std,
            normalised=normalised(score.mean, scores[UNCONTROLLED].mean, scores[REAL].mean),
            clip_score=None if isinstance(clip, Missing) else clip(score.images, prompts),
            fid=fids.get(name),
        )
        for name, score in scores.items()
    )


def _fids(inception: Inception, scores: Mapping[str, AdherenceScore]) -> dict[str, float]:
    if len(scores[REAL].images) < 2:
        return {}
    real = inception(scores[REAL].images)
    others = {name: score.images for name, score in scores.items() if name != REAL}
    return {name: frechet_distance(inception(images), real) for name, images in others.items()}


def _notes(clip: ClipScore | Missing, inception: Inception | Missing, count: int) -> list[str]:
    told = clip.why if isinstance(clip, Missing) else f"CLIP score by {clip.name}"
    notes = [f"{told}."]
    if isinstance(inception, Missing):
        return [*notes, f"{inception.why}."]
    notes.append("FID to the photographs by torchvision's Inception v3, not the usual port of it.")
    return [*notes, *filter(None, [few_samples(count)])]


def _or_dash(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.2f}"
