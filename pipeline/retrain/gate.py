"""The gate: may a candidate take the place of what is promoted?

Numbers in, a verdict out; nothing here reads a file. Each refusal is one sentence with its figures.
"""

import math
from dataclasses import dataclass
from statistics import mean, variance
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """How much worse a candidate may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adherence_margin: float = Field(
        0.02, ge=0, description="adherence below the promoted run's that is borne, beside the noise"
    )
    coverage_drop: float = Field(
        0.02, ge=0, le=1, description="share of the source's images, fewer of which are samples"
    )
    failed_share: float = Field(
        0.01, ge=0, le=1, description="share of the source's images that may have failed"
    )
    size_drop: float = Field(
        0.1, ge=0, le=1, description="share of the promoted samples that may be gone"
    )
    batch_coverage_drop: float = Field(
        0.2, ge=0, le=1, description="as coverage_drop, among the images that came alone"
    )
    batch_least: int = Field(20, ge=1, description="images that came, of which fewer prove nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a dataset and the run trained on it are judged by.

    Attributes:
        adherence: of the run, once a seed, normalised so that no control is 0 and the photographs
            are 1; empty where nothing was trained.
        images: usable or not, in the source.
        samples: in the dataset.
        failed: images that failed.
    """

    adherence: tuple[float, ...] = ()
    images: int
    samples: int
    failed: int

    @property
    def coverage(self) -> float:
        """Share of the source's images that are samples."""
        return self.samples / max(self.images, 1)

    @property
    def failed_share(self) -> float:
        """Share of the source's images that failed."""
        return self.failed / max(self.images, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the gate says.

    Attributes:
        passed: whether the candidate may be promoted.
        sentences: why not; none where it passed.
        figures: all that was compared; JSON types.
    """

    passed: bool
    sentences: tuple[str, ...]
    figures: dict[str, Any]


def judge(
    candidate: Figures, promoted: Figures | None, limits: Limits, *, came: Figures | None = None
) -> Verdict:
    """Compare a candidate with what is promoted.

    Args:
        candidate: its figures; those of its run may be missing only where the promoted one's are.
        promoted: what it is compared with; None where nothing is promoted, so that the candidate's
            own figures count alone.
        limits: how much worse it may be.
        came: the images alone that the promoted dataset did not have, as few bad ones are lost
            among many good ones; None to leave them out.
    """
    sentences = _of_itself(candidate, limits)
    if promoted is not None:
        sentences += _of_the_batch(came, promoted, limits)
        sentences += _of_the_dataset(candidate, promoted, limits)
        sentences += _of_the_run(candidate, promoted, limits)
    return Verdict(
        passed=not sentences,
        sentences=tuple(sentences),
        figures={
            "candidate": _shown(candidate),
            "promoted": _shown(promoted) if promoted else None,
            "came": _shown(came) if came else None,
            "noise": noise(candidate, promoted) if promoted else None,
            "limits": limits.model_dump(),
        },
    )


def noise(candidate: Figures, promoted: Figures) -> float:
    """Return the standard error of the difference of two mean adherences.

    It is that of runs which scatter over seeds as the promoted one does: a candidate that scatters
    more buys no room by it. 0 where the promoted run has one seed, which tells of no scatter.
    """
    theirs, ours = promoted.adherence, candidate.adherence
    if len(theirs) < 2 or not ours:
        return 0.0
    return math.sqrt(variance(theirs) * (1 / len(theirs) + 1 / len(ours)))


def _of_itself(candidate: Figures, limits: Limits) -> list[str]:
    found = []
    if not candidate.samples:
        found.append("The dataset has no sample.")
    if candidate.failed_share > limits.failed_share:
        found.append(
            f"{candidate.failed:,} of {candidate.images:,} images failed "
            f"({candidate.failed_share:.1%}); at most {limits.failed_share:.1%} may."
        )
    if not all(map(math.isfinite, candidate.adherence)):
        found.append("The adherence of the run is no finite number.")
    return found


def _of_the_batch(came: Figures | None, promoted: Figures, limits: Limits) -> list[str]:
    if came is None or came.images < limits.batch_least:
        return []
    if came.coverage >= promoted.coverage - limits.batch_coverage_drop:
        return []
    return [
        f"{came.coverage:.1%} of the {came.images:,} images that came are samples, "
        f"{promoted.coverage:.1%} of those before; it may fall by {limits.batch_coverage_drop:.1%}."
    ]


def _of_the_dataset(candidate: Figures, promoted: Figures, limits: Limits) -> list[str]:
    found = []
    if candidate.coverage < promoted.coverage - limits.coverage_drop:
        found.append(
            f"{candidate.coverage:.1%} of the images are samples, {promoted.coverage:.1%} before; "
            f"it may fall by {limits.coverage_drop:.1%}."
        )
    if candidate.samples < promoted.samples * (1 - limits.size_drop):
        found.append(
            f"The dataset has {candidate.samples:,} samples, {promoted.samples:,} before; "
            f"{limits.size_drop:.1%} of them may go."
        )
    return found


def _of_the_run(candidate: Figures, promoted: Figures, limits: Limits) -> list[str]:
    theirs, ours = promoted.adherence, candidate.adherence
    if not theirs or not all(map(math.isfinite, ours)):
        return []
    if not ours:
        return ["The adherence of the run was not measured; that of the promoted one was."]
    error = noise(candidate, promoted)
    if mean(ours) >= mean(theirs) - limits.adherence_margin - error:
        return []
    return [
        f"Adherence is {mean(ours):.3f}, {mean(theirs):.3f} before; it may fall by "
        f"{limits.adherence_margin:g} and the noise of {error:.3f} over {len(theirs)} seeds."
    ]


def _shown(figures: Figures) -> dict[str, Any]:
    values = [value if math.isfinite(value) else None for value in figures.adherence]
    finite = [value for value in values if value is not None]
    return {
        "adherence": values,
        "adherence_mean": mean(finite) if finite and finite == values else None,
        "coverage": figures.coverage,
        "failed_share": figures.failed_share,
        "images": figures.images,
        "samples": figures.samples,
        "failed": figures.failed,
    }
