"""Real photographs for tests; a test is skipped, with a plain reason, where they are absent."""

from pathlib import Path

import pytest

_BESIDE = Path(__file__).parents[2] / "shared" / "data"
_NO_PHOTOGRAPHS = ("_seg", "_parts")


def photographs() -> list[Path]:
    """Return the paths of the photographs beside the checkout, sorted; skips where there are none.

    Two of them have no colour.
    """
    found = sorted(
        path
        for path in _BESIDE.rglob("*")
        if path.suffix in (".jpg", ".png")
        and not any(word in path.stem for word in _NO_PHOTOGRAPHS)
    )
    if not found:
        pytest.skip("the photographs of ../shared/data are not here")
    return found
