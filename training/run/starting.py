"""Whether a new run can start from the ControlNet of another: on the same base, UNet and weights.

A ControlNet answers to the UNet that it learned beside. Where that UNet learned, too, or was of
another base, the copy starts from outputs that its new UNet does not know.
"""

import logging
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from training.errors import ControlNetError
from training.model.base import LOCKED_TYPES, Base, fingerprint, load_files
from training.model.choose import trained_unet
from training.run.folder import read_settings, run_of
from training.settings.config import TrainConfig

_log = logging.getLogger(__name__)


def check_start(config: TrainConfig, base: Base) -> None:
    """Check that what `config.start_from` holds was trained beside the UNet of `base`.

    Another base is only warned of: some are so near that it is wanted. A folder from elsewhere does
    not tell its base, and passes.

    Raises:
        ControlNetError: a UNet was trained with it, which is not the base's.
    """
    if config.start_from is None:
        return
    folder = Path(config.start_from)
    unet = trained_unet(folder)
    if unet is None:
        _compare_bases(config, base, folder)
    elif not _same_weights(unet, base.unet):
        raise ControlNetError(
            f"the ControlNet in {str(folder)!r} learned together with a UNet (phase unlocked), "
            f"and obeys only beside that one, not beside {config.base!r}'s. Start from a "
            "checkpoint of before that phase (RUN/checkpoints/STEP), or give as base a copy of "
            f"its base folder whose unet/ is {str(folder / 'unet')!r}"
        )


def _compare_bases(config: TrainConfig, base: Base, folder: Path) -> None:
    run = run_of(folder)
    settings = None if run is None else read_settings(run)
    identity = {} if settings is None else settings["identity"]
    if settings is None or "base" not in identity:
        return
    here = _fingerprint(base, LOCKED_TYPES[identity["mixed_precision"]])
    if identity["base"] != here:
        _log.warning(
            "%s was trained beside another base than %s (base %.12s there, %.12s here): it may "
            "have to learn anew; give its own base, %s, or leave start_from out",
            folder,
            config.base,
            identity["base"],
            here,
            settings["config"]["base"],
        )


def _fingerprint(base: Base, dtype: torch.dtype) -> str:
    """Return the fingerprint of a base as a run in another precision loads it."""
    if base.unet.dtype != dtype:
        base = load_files(base.files, dtype=dtype)
    return fingerprint(base.networks)


def _same_weights(one: UNet2DConditionModel, other: UNet2DConditionModel) -> bool:
    """Say whether two UNets are equal in the precision of the second."""
    left, right = one.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(
        torch.equal(left[name].to(tensor), tensor) for name, tensor in right.items()
    )
