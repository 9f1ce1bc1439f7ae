"""The automatic prompt (section 4.1): what a captioner says of the default prompt's result."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import UInt8

from training.sample.prompts import DEFAULT_PROMPT
from training.sample.sampler import Sampled

Captioner: TypeAlias = Callable[[Sequence[UInt8[np.ndarray, "h w 3"]]], list[str]]
"""RGB images, 0..255, to a caption each; "" where it has nothing to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Automatic:
    """Both passes.

    Attributes:
        first: made with the default prompt.
        prompts: of the second pass, one a picture: its caption, or the default prompt where the
            captioner said nothing.
        second: made with `prompts`.
    """

    first: Sampled
    prompts: list[str]
    second: Sampled


def sample_automatic(
    draw: Callable[[Sequence[str]], Sampled], captioner: Captioner, *, count: int
) -> Automatic:
    """Sample with the default prompt, caption what came out, and sample with the captions.

    Args:
        draw: prompts, one a picture -> pictures; the same seeds each time.
        captioner: looks at the first pass's pictures.
        count: how many pictures `draw` makes.
    """
    first = draw([DEFAULT_PROMPT] * count)
    prompts = [caption or DEFAULT_PROMPT for caption in captioner(first.images)]
    return Automatic(first=first, prompts=prompts, second=draw(prompts))
