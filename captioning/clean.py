"""Texts made fit to be captions: pure functions, and a version that recipes' fingerprints hold."""

import re
import unicodedata

CLEANING_VERSION = 1
"""Counts up when a function here comes to give another text."""

# A word that BLIP puts before or in place of what it sees: arafed, araffe, araffes, arrafe, ...
_ARTEFACT = re.compile(r"arr?aff?e[ds]?", re.IGNORECASE)

_LOOP = 3  # a phrase said so often in a row is a loop; twice may be meant: "bye bye"
_LONGEST_PHRASE = 8  # words


def clean(text: str) -> str:
    """Make one printable line: control characters and runs of white space become one space."""
    printable = (" " if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in text)
    return " ".join("".join(printable).split())


def clean_generated(text: str) -> str:
    """Clean a network's text: one line, without BLIP's artefact words and repeated-token loops.

    A phrase of up to 8 words that is said three times or more in a row is said once.
    """
    words = [word for word in clean(text).split() if not _ARTEFACT.fullmatch(word.strip(".,;:!?"))]
    while (shorter := _without_loops(words)) != words:  # what is left may be a loop again
        words = shorter
    return " ".join(words)


def _without_loops(words: list[str]) -> list[str]:
    for length in range(1, _LONGEST_PHRASE + 1):
        words = _collapse(words, length)
    return words


def _collapse(words: list[str], length: int) -> list[str]:
    """Say every loop of phrases of `length` words once; a last, cut-off round of it goes too."""
    kept: list[str] = []
    at = 0
    while at < len(words):
        phrase, end = words[at : at + length], at + length
        while words[end : end + length] == phrase:
            end += length
        if end - at < _LOOP * length:
            kept.append(words[at])
            at += 1
            continue
        kept += phrase
        rest = words[end:]
        at = len(words) if rest == phrase[: len(rest)] else end
    return kept
