"""The phases of a training: which connections and weights learn, and from when (paper 3.3, 4).

    mid_only -> full -> unlocked

``mid_only`` connects the middle block alone (the paper's lightweight training); ``full`` connects
the decoder's skips; ``unlocked`` trains the base's decoder, or all of it, too. A phase ends at a
stated optimizer step, or where adherence to the condition has converged. Each begins at a
checkpoint, so that a change of phase is a resume like any other.
"""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Trains = Literal["mid_only", "full", "unlocked"]

Scope = Literal["decoder", "all"]
"""Which part of an unlocked UNet learns: the original code's choice, or the paper's words."""

UNLOCKED_LEARNING_RATE = 2e-6
"""The original code's rate for a base that is unlocked."""

_ORDER: tuple[Trains, ...] = ("mid_only", "full", "unlocked")


class Phase(BaseModel):
    """One phase; unknown keys raise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trains: Trains = Field(description="mid_only, full or unlocked.")
    until: int | Literal["converged"] | None = Field(
        default=None,
        description="Optimizer step of the run after which the next phase begins, or converged; "
        "null for the last phase.",
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description=f"AdamW's rate, a step; null for the run's, {UNLOCKED_LEARNING_RATE} unlocked.",
    )
    scope: Scope = Field(
        default="decoder", description="What of the base an unlocked phase trains: decoder or all."
    )

    @model_validator(mode="after")
    def _check_until(self) -> Self:
        if isinstance(self.until, int) and self.until < 1:
            raise ValueError(f"until must be a step from 1, got {self.until}")
        return self

    def rate(self, default: float) -> float:
        """Return the learning rate of this phase."""
        if self.learning_rate is not None:
            return self.learning_rate
        return UNLOCKED_LEARNING_RATE if self.trains == "unlocked" else default


FULL = (Phase(trains="full"),)
"""The plain training of section 3.3."""


def check_phases(phases: Sequence[Phase]) -> None:
    """Check that phases follow each other.

    Raises:
        ValueError: there are none, they are out of order, or an end is missing or not later.
    """
    if not phases:
        raise ValueError("phases is empty; the plain training is [{trains: full}]")
    kinds = [_ORDER.index(phase.trains) for phase in phases]
    if kinds != sorted(set(kinds)):
        raise ValueError(f"phases must come in the order {', '.join(_ORDER)}, each at most once")
    if phases[-1].until is not None:
        raise ValueError("the last phase has no until: it lasts for the rest of the steps")
    if any(phase.until is None for phase in phases[:-1]):
        raise ValueError("every phase but the last needs until: a step, or converged")
    ends = [phase.until for phase in phases if isinstance(phase.until, int)]
    if ends != sorted(set(ends)):
        raise ValueError(f"each phase must end after the one before it, got ends {ends}")


def last_step(phase: Phase, steps: int) -> int:
    """Return the step after which `phase` is over, at the latest.

    Args:
        phase: a phase that is not over.
        steps: the last step of the run.
    """
    return min(steps, phase.until) if isinstance(phase.until, int) else steps


def advance(phases: Sequence[Phase], index: int, step: int, *, converged: bool = False) -> int:
    """Return the index of the phase that the step after `step` belongs to.

    Phases whose end lies behind already are skipped: where one waits for the convergence, that may
    come after the end of the next.

    Args:
        phases: of the run.
        index: of the phase that `step` belonged to.
        step: optimizer steps done.
        converged: whether the condition is obeyed now.
    """
    while index < len(phases) - 1:
        until = phases[index].until
        over = converged if until == "converged" else until is not None and step >= until
        if not over:
            break
        index, converged = index + 1, False
    return index
