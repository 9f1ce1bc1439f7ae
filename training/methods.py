"""From settings or a folder to the network that predicts: ControlNet, or the concat baseline."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from training.config import TrainConfig
from training.controlnet import Base, load_controlnet, new_controlnet, starting_controlnet
from training.denoiser import UNET, Controlled, Denoiser
from training.phases import Scope, Trains


def new_denoiser(config: TrainConfig, base: Base) -> Denoiser:
    """Return the network of a new run, before its first step; it predicts what `base` does.

    Raises:
        BaseModelError: the base has another shape than the method needs.
        ControlNetError: `config.start_from` holds no ControlNet, or one for another base.
    """
    if config.start_from is None:
        controlnet = new_controlnet(base, seed=config.seed)
    else:
        controlnet = starting_controlnet(base, config.start_from)
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
    controlnet = load_controlnet(str(folder))
    return Controlled(_unet(folder, base, trains), controlnet, trains=trains, scope=scope)


def _unet(folder: Path, base: Base, trains: Trains) -> UNet2DConditionModel:
    if (folder / UNET).is_dir():
        return UNet2DConditionModel.from_pretrained(folder / UNET, local_files_only=True)
    if trains != "unlocked" or base.unet.dtype == torch.float32:
        return base.unet
    return UNet2DConditionModel.from_pretrained(base.folder / UNET, local_files_only=True)
