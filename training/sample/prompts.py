"""The prompts that the paper tests its models with (section 4.1)."""

import re
from typing import Literal

from training.errors import SamplingError

DEFAULT_PROMPT = "a professional, detailed, high-quality image"
"""The default prompt, in the words of section 4.1.

The paper words it three ways: "a high-quality, detailed, and professional image" in the caption of
figure 1 and "a detailed high-quality professional image" in the appendix. Change the version below
with the words, since images made with another default prompt do not compare.
"""

DEFAULT_PROMPT_VERSION = "paper-4.1"

_FOREIGN = re.compile(r"\([^()]*:\s*-?[\d.]+\s*\)|<lora:[^>]*>|\bBREAK\b")

PromptMode = Literal["none", "default", "automatic", "user"]
"""``none``: the empty string. ``default``: `DEFAULT_PROMPT`. ``user``: the given text.

``automatic``: first `DEFAULT_PROMPT`, then what a captioner says of its result; see
`training.sample.automatic`.
"""


def choose_prompt(mode: PromptMode, text: str | None = None) -> str:
    """Return the prompt of `mode`; of mode ``automatic``, that of the first pass.

    Args:
        mode: one of the paper's modes.
        text: the prompt of mode ``user``; the other modes take none.

    Raises:
        SamplingError: mode ``user`` without a text, or another mode with one.
    """
    if mode == "user":
        if text is None:
            raise SamplingError("prompt mode 'user' needs a text: give one, or use mode 'default'")
        return text
    if text is not None:
        raise SamplingError(f"prompt mode {mode!r} takes no text, got {text!r}: use mode 'user'")
    return "" if mode == "none" else DEFAULT_PROMPT


def foreign_syntax(prompt: str) -> list[str]:
    """Return the parts of a prompt that other programs would not read as words.

    Those are weights, ``(red:1.3)``, networks to load, ``<lora:name:1>``, and ``BREAK``. Here all
    words go to the text encoder as they stand.
    """
    return _FOREIGN.findall(prompt)
