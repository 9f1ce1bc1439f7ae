"""What the torch networks share: precisions, the way onto the device, what upstream lacks."""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detectors.base import Batch, Precision
from detectors.errors import DetectorError

DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


@contextmanager
def stated(precision: Precision) -> Iterator[None]:
    """Compute on a GPU in the precision that is stated, and in the same way each time.

    By default torch's convolutions use TF32 for fp32, and may pick another algorithm in each
    process. The settings are the process's; they are as they were afterwards.
    """
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


def to_device_nchw(
    images: Batch, device: torch.device, dtype: torch.dtype
) -> Float[Tensor, "b 3 h w"]:
    """Copy pixels to the device as bytes, then make them floats 0..255 in channels-last memory."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device, non_blocking=True)
    return pixels.permute(0, 3, 1, 2).to(dtype)  # NHWC memory under an NCHW shape: channels last


@contextmanager
def quietly() -> Iterator[None]:
    """Silence warnings and prints: importing controlnet_aux alone gives two dozen."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def without_wrapper(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop the ``module.`` that DataParallel puts before the names of a checkpoint."""
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def ready(
    net: nn.Module,
    device: torch.device,
    dtype: torch.dtype,
    memory_format: torch.memory_format = torch.channels_last,
) -> nn.Module:
    """Put a loaded network onto a device for inference only, in channels-last memory if it pays."""
    placed = net.to(device, dtype).to(memory_format=memory_format)
    return placed.eval().requires_grad_(False)


def fold_norms(net: nn.Module) -> nn.Module:
    """Fold each batch norm into the convolution before it in its `nn.Sequential`.

    For networks that spend their time in memory rather than in sums: M-LSD takes a quarter less.
    """
    net.eval()
    for layers in [module for module in net.modules() if isinstance(module, nn.Sequential)]:
        for at, (layer, after) in enumerate(pairwise(list(layers))):
            if isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                layers[at], layers[at + 1] = fuse_conv_bn_eval(layer, after), nn.Identity()
    return net


def keep_fp32(layer: nn.Module) -> None:
    """Keep one layer, and what it is given, in fp32 while its network runs in less.

    For a last layer: half precision would round a depth in the thousands, or a coordinate in the
    hundreds, more coarsely than the maps show.
    """

    def widen(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(value.float() for value in inputs)

    layer.float().register_forward_pre_hook(widen)


def finite(found: Tensor, network: str) -> Tensor:
    """Return `found`.

    Raises:
        DetectorError: it has values that are not finite, which would end as a plausible blank map.
    """
    if not torch.isfinite(found).all():
        raise DetectorError(
            f"{network} gave values that are not finite; fp16 overflows above 65504: "
            "use bf16 or fp32"
        )
    return found


def require_multiple(images: Batch, step: int, network: str) -> None:
    """Check the sizes of images against the coarsest layers, which must meet again on the way up.

    Raises:
        DetectorError: a side is no multiple of `step` pixels.
    """
    height, width = images.shape[1:3]
    if height % step or width % step:
        raise DetectorError(
            f"{network} takes sides that are multiples of {step}, got {width}x{height}: "
            "resize the image first"
        )
