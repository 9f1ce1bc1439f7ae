"""What networks in transformers' folders share: loaded whole or not at all; pixels as they want."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from detectors.errors import WeightsError
from detectors.palettes import ADE20K_CLASSES
from detectors.runtimes.on_torch import quietly

_FILTERS = {2: InterpolationMode.BILINEAR, 3: InterpolationMode.BICUBIC}  # by Pillow's numbers


def from_folder(
    folder: Path, kind: str, *, trains: str | None = None, family: str | None = None
) -> tuple[Any, Any]:
    """Return the network and the image processor of a folder as the hub has them.

    Args:
        folder: with a configuration, weights and the image processor's values.
        kind: class of the network, for example ``UperNetForSemanticSegmentation``.
        trains: part of it that only training looks at; it is dropped, and may be missing.
        family: model type of which every folder has such a network in it, whatever the folder names
            its own; None: it must be named.

    Raises:
        WeightsError: the folder has another network, or not all of it: transformers itself would
            fill what is missing with random weights and go on.
    """
    with quietly():
        import transformers

        try:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
            held = config.architectures or ["no named network"]
            if not (kind in held if family is None else config.model_type == family):
                raise WeightsError(f"{folder} has {', '.join(held)}, expected {kind}")
            net, loading = getattr(transformers, kind).from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
            how = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        except WeightsError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            why = str(error).strip().partition("\n")[0]
            raise WeightsError(f"{folder} has no {kind} that can be loaded: {why}") from error
    unused = () if trains is None else (f"{trains}.",)
    if missing := sorted(name for name in loading["missing_keys"] if not name.startswith(unused)):
        raise WeightsError(f"{folder} lacks {len(missing)} of {kind}'s tensors, first {missing[0]}")
    if trains is not None:
        setattr(net, trains, None)
    return net, how


def require_ade20k(net: Any, folder: Path) -> None:
    """Raise WeightsError where a folder's network knows other classes than ADE20K's."""
    if net.config.num_labels != ADE20K_CLASSES:
        raise WeightsError(
            f"{folder} has {net.config.num_labels} classes, expected ADE20K's {ADE20K_CLASSES}"
        )


def best_classes(
    scores: Iterable[Float[Tensor, "c s t"]], size: tuple[int, int]
) -> list[UInt8[np.ndarray, "h w"]]:
    """Return each pixel's best class at the images' size, as annotations number them: from 1.

    One image's scores are brought to that size at a time, as they take 150 floats a pixel; what
    comes of all of them leaves the device at once.
    """
    found = []
    for one in scores:
        if one.shape[1:] != size:
            one = F.interpolate(one[None], size, mode="bilinear", align_corners=False)[0]
        found.append((one.argmax(0) + 1).to(torch.uint8))
    return list(torch.stack(found).cpu().numpy())


def pixel_values(
    pixels: UInt8[Tensor, "b 3 h w"], how: Any, size: tuple[int, int], dtype: torch.dtype
) -> Float[Tensor, "b 3 s t"]:
    """Resize and normalise on the device with an image processor's values.

    Args:
        pixels: 0..255, on the device.
        how: the image processor.
        size: the height and width to resize to.
        dtype: of the result.
    """
    interpolation = _FILTERS[how.resample]
    resized = transforms.resize(pixels, list(size), interpolation=interpolation, antialias=True)
    scaled: Tensor = resized.float() * how.rescale_factor
    if how.do_normalize:
        scaled = (scaled - _row(how.image_mean, scaled)) / _row(how.image_std, scaled)
    return scaled.to(dtype)


def _row(values: list[float], like: Tensor) -> Float[Tensor, "1 3 1 1"]:
    return like.new_tensor(values).reshape(1, 3, 1, 1)
