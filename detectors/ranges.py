"""Ranges in specs: a number fixes a parameter, a pair [smallest, largest] is drawn from."""

from typing import Annotated, TypeVar

import numpy as np
from pydantic import AfterValidator, Field

N = TypeVar("N", int, float)


def ordered(bounds: tuple[N, N]) -> tuple[N, N]:
    """Return `bounds`; raises ValueError where they run backwards."""
    if bounds[0] > bounds[1]:
        raise ValueError(f"range {list(bounds)} runs backwards; write [smallest, largest]")
    return bounds


_Whole = Annotated[int, Field(ge=0)]
_Real = Annotated[float, Field(ge=0, allow_inf_nan=False)]

IntRange = _Whole | Annotated[tuple[_Whole, _Whole], AfterValidator(ordered)]
FloatRange = _Real | Annotated[tuple[_Real, _Real], AfterValidator(ordered)]


def draw_int(bounds: int | tuple[int, int], generator: np.random.Generator) -> int:
    """Draw uniformly from a range of integers, both ends included."""
    if isinstance(bounds, int):
        return bounds
    return int(generator.integers(bounds[0], bounds[1], endpoint=True))


def draw_float(bounds: float | tuple[float, float], generator: np.random.Generator) -> float:
    """Draw uniformly from a range of numbers."""
    if isinstance(bounds, float | int):
        return float(bounds)
    return float(generator.uniform(*bounds))
