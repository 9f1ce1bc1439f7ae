"""What steers a picture: ControlNets with what they are shown, how much and when they act."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from diffusers import ControlNetModel

from catalog.images import Image
from training.errors import SamplingError
from training.model.denoiser import Denoiser

Window: TypeAlias = tuple[float, float]

WHOLE: Window = (0.0, 1.0)

Weighting = Literal["even", "guess", "resolution"]
"""How strongly a ControlNet's outputs act, and on which half of the guidance.

``even``: all alike, on the unconditional and the conditional half. ``guess``: from 0.1 at the
finest resolution to 1 at the middle block, on the conditional half only (diffusers' guess mode).
``resolution``: by `resolution_weights`, on the conditional half only.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A ControlNet, what it is shown, how much and when it acts.

    Attributes:
        controlnet: on the base's device.
        hints: conditions, RGB 0..255; one a picture, or one for all of them.
        scale: factor on its outputs; 0 leaves the base.
        window: the share of the steps in which it acts, first and last, 0..1; it does not run in
            the others. (0, 0.5) is the coarse control of figure 27.
        mid_only: only the middle block's output is added, as while it was trained so.
    """

    controlnet: ControlNetModel
    hints: Sequence[Image]
    scale: float = 1.0
    window: Window = WHOLE
    mid_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditioned:
    """A denoiser of any method, and what it is shown in every step.

    Attributes:
        denoiser: on the base's device.
        hints: conditions, RGB 0..255; one a picture, or one for all of them.
    """

    denoiser: Denoiser
    hints: Sequence[Image]


def acts(window: Window, done: int, steps: int) -> bool:
    """Say whether the step after `done` of `steps` lies within a window of shares 0..1.

    The first half, (0, 0.5), of 20 steps is exactly the steps 0 to 9.
    """
    return window[0] <= done / steps and (done + 1) / steps <= window[1]


def check_window(window: Window, steps: int) -> None:
    """Raise SamplingError where a window is no part of 0..1, or holds none of the steps."""
    first, last = window
    if not 0 <= first < last <= 1:
        raise SamplingError(
            f"the window is {first:g} to {last:g}; expected two shares of the steps with "
            "0 <= first < last <= 1, for example 0 0.5"
        )
    if not any(acts(window, done, steps) for done in range(steps)):
        raise SamplingError(
            f"no whole step of {steps} lies in the window {first:g} to {last:g}: widen it"
        )


def picture_size(
    hints: Sequence[Image], size: tuple[int, int] | None, multiple: int
) -> tuple[int, int]:
    """Return height and width, in pixels, of pictures with these hints.

    Args:
        hints: must all have one size.
        size: height and width asked for; None: the hints'.
        multiple: pixels that a latent cell has a side.

    Raises:
        SamplingError: the sizes differ, there are none, or the base cannot make them.
    """
    sizes = {hint.shape[:2] for hint in hints} | ({size} if size else set())
    if len(sizes) != 1:
        listed = ", ".join(f"{width}x{height}" for height, width in sorted(sizes)) or "none"
        raise SamplingError(f"pictures made at once have one size, got {listed}")
    height, width = sizes.pop()
    if height % multiple or width % multiple or not height or not width:
        fit = [max(multiple, side // multiple * multiple) for side in (width, height)]
        raise SamplingError(
            f"the condition is {width}x{height}; height and width must be multiples of {multiple} "
            f"pixels: crop or resize it, for example to {fit[0]}x{fit[1]}"
        )
    return height, width
