"""The ControlNet that is cut from a base (paper 3.1, 3.2)."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import ControlNetModel

from training.errors import ControlNetError
from training.model.base import Base
from training.model.hint_encoder import CONTROLNETS
from training.settings.config import HintEncoder


def load_controlnet(
    folder: str, controlnets: Mapping[HintEncoder, type[ControlNetModel]] = CONTROLNETS
) -> ControlNetModel:
    """Load a ControlNet from a run folder or a checkpoint's folder.

    Args:
        folder: in diffusers' layout.
        controlnets: the classes that it may be of, besides diffusers' own.

    Raises:
        ControlNetError: the folder holds none.
    """
    config = Path(folder) / "config.json"
    if not config.is_file():
        raise ControlNetError(
            f"{folder!r} holds no ControlNet (no config.json): name a finished run, "
            "or one of its checkpoints/ folders"
        )
    name = json.loads(config.read_bytes()).get("_class_name")
    known = {network.__name__: network for network in controlnets.values()}
    return known.get(name, ControlNetModel).from_pretrained(folder, local_files_only=True)


def starting_controlnet(
    base: Base, folder: str, *, hint_encoder: HintEncoder = "released"
) -> ControlNetModel:
    """Load a trained ControlNet to train on, as the paper's scribbles start from its Canny model.

    Raises:
        ControlNetError: there is none in `folder`, or it was made for another base or with
            another hint encoder.
    """
    trained = load_controlnet(folder, base.CONTROLNETS)
    fits = new_controlnet(base, seed=0, hint_encoder=hint_encoder).state_dict()
    shapes = {name: tensor.shape for name, tensor in trained.state_dict().items()}
    if shapes != {name: tensor.shape for name, tensor in fits.items()}:
        raise ControlNetError(
            f"the ControlNet in {folder!r} has other layers than one for this base with the "
            f"{hint_encoder} hint encoder: start from a run on the same base with the same "
            "hint_encoder, or leave start_from out"
        )
    return trained


def new_controlnet(
    base: Base, *, seed: int, hint_encoder: HintEncoder = "released"
) -> ControlNetModel:
    """Cut a trainable copy of the encoder and middle block out of `base`.

    The copy's outputs pass through zero convolutions, so it changes nothing before it is trained
    (Eq. 3, 4). The hint encoder's last layer is zero, too.

    Args:
        base: the locked model.
        seed: seed of the hint encoder's other layers.
        hint_encoder: the released one, or the one that the paper describes.

    Raises:
        BaseModelError: the base's latents are smaller than the hint encoder can reach.
    """
    with torch.random.fork_rng(devices=[]):  # diffusers initialises from the global generator
        torch.manual_seed(seed)
        return base.cut_controlnet(hint_encoder)
