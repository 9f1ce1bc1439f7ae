"""What captioners that torch runs share: loaded quietly and whole, computed as is stated."""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch

from captioning.errors import WeightsError


@contextmanager
def quietly() -> Iterator[None]:
    """Keep what transformers says and draws while it loads; missing weights are in its report."""
    with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def cannot_load(folder: Path, kind: str, error: Exception) -> WeightsError:
    """Return what to raise where a folder cannot be loaded as a kind of model."""
    reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return WeightsError(f"{folder} cannot be loaded as {kind}: {reason}")


def require_whole(folder: Path, report: Mapping[str, Any], kind: str) -> None:
    """Raise WeightsError where transformers' report names tensors that it had to make up."""
    lacking = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if lacking:
        raise WeightsError(
            f"{folder} is no whole {kind}: {len(lacking)} of its tensors are missing or of another "
            f"shape, the first is {lacking[0]}"
        )


@contextmanager
def stated(precision: str, device: str) -> Iterator[None]:
    """Compute on a GPU in the precision that is stated, and in the same way each time.

    The settings are the process's; they are as they were afterwards. On a CPU nothing is set.
    """
    if device == "cpu":
        yield
        return
    tf32 = precision == "tf32"
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
