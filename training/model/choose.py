"""From settings or a folder to the network that predicts: ControlNet, or the concat baseline."""

import copy
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from training.errors import ControlNetError
from training.model.base import Base
from training.model.concat_baseline import Concat, concat_unet, reads_condition
from training.model.controlnet import load_controlnet, new_controlnet, starting_controlnet
from training.model.denoiser import UNET, Controlled, Denoiser
from training.settings.config import TrainConfig
from training.settings.phases import Scope, Trains


def new_denoiser(config: TrainConfig, base: Base) -> Denoiser:
    """Return the network of a new run, before its first step; it predicts what `base` does.

    Raises:
        BaseModelError: the base has another shape than the method needs.
        ControlNetError: `config.start_from` holds no ControlNet, or one for another base.
    """
    if config.method == "concat":
        return Concat(concat_unet(_in_fp32(base)))
    if config.start_from is None:
        exact = replace(base, unet=_in_fp32(base))
        controlnet = new_controlnet(exact, seed=config.seed, hint_encoder=config.hint_encoder)
    else:
        controlnet = starting_controlnet(base, config.start_from, hint_encoder=config.hint_encoder)
    return Controlled(base.unet, controlnet)


def load_denoiser(
    folder: Path, base: Base, *, trains: Trains = "full", scope: Scope = "decoder"
) -> Denoiser:
    """Load what a run or a checkpoint trained, beside the parts of `base` that it did not.

    Args:
        folder: of the run, finished, or of a checkpoint.
        base: the base that it was trained on.
        trains: what is to learn next; ``unlocked`` has the UNet in fp32.
        scope: which part of the UNet learns where `trains` is ``unlocked``.

    Raises:
        ControlNetError: the folder holds nothing that was trained.
    """
    if not (folder / "config.json").is_file() and (folder / UNET).is_dir():
        return _load_concat(folder, base)
    controlnet = load_controlnet(str(folder), base.CONTROLNETS)
    return Controlled(_unet(folder, base, trains), controlnet, trains=trains, scope=scope)


def _load_concat(folder: Path, base: Base) -> Concat:
    unet = trained_unet(folder)
    assert unet is not None, folder
    if not reads_condition(unet, base.unet):
        raise ControlNetError(
            f"the UNet in {str(folder)!r} has {unet.config.in_channels} input channels: it is no "
            "concat baseline of this base; name the base that it was trained on"
        )
    return Concat(unet)


def _unet(folder: Path, base: Base, trains: Trains) -> UNet2DConditionModel:
    trained = trained_unet(folder)
    if trained is not None:
        return trained
    if trains != "unlocked":
        return base.unet
    unet = _in_fp32(base)
    return copy.deepcopy(unet) if unet is base.unet else unet  # the base stays what it is


def trained_unet(folder: Path) -> UNet2DConditionModel | None:
    """Load the UNet that learned in a run or a checkpoint; None where none did."""
    if not (folder / UNET).is_dir():
        return None
    return UNet2DConditionModel.from_pretrained(folder / UNET, local_files_only=True)


def _in_fp32(base: Base) -> UNet2DConditionModel:
    """Return the base's UNet as it is stored, where it was loaded in a lower precision."""
    if base.unet.dtype == torch.float32:
        return base.unet
    return UNet2DConditionModel.from_pretrained(base.files.folder / UNET, local_files_only=True)
