"""Which latents of a dataset a run takes, if any: those that the base in hand would make itself."""

import logging
from collections.abc import Sequence

from catalog.dataset.latents import Identity, Latents, LatentsFolder
from training.data.view import SampleView
from training.errors import DataError
from training.model.base import Base
from training.model.files import BaseFiles
from training.settings.config import TrainConfig

_log = logging.getLogger(__name__)


def choose_latents(
    folders: Sequence[LatentsFolder],
    base: Base,
    view: SampleView,
    config: TrainConfig,
    begun: str | None,
) -> Latents | None:
    """Return the latents that fit; of several, those in fp32, and those with text.

    A run that goes on takes what it began with.

    Args:
        folders: of the dataset.
        base: the locked networks.
        view: the rows to train on; all must be there.
        config: the settings.
        begun: name of the latents that the run began with, "" where it began without; None for a
            new run.

    Raises:
        DataError: none fit, where they are asked for or the run began with them.
    """
    required = config.latents == "always" or bool(begun)
    if config.latents == "never" or (begun == "" and not required):
        return None
    reasons = []
    for folder in sorted(folders, key=_preference):
        if begun and folder.identity.name != begun:
            continue
        why = _misfit(folder.identity, base.files, config)
        latents = folder.open() if why is None else None
        if latents is not None:
            lacking = latents.lacking(view.keys())
            if not lacking:
                _log.info("latents of %s are used", folder.uri)
                return latents
            why = f"{lacking:,} of {len(view):,} samples have none"
        reasons.append(f"{folder.identity.name}: {why or 'it is not finished'}")
    told = "; ".join(reasons) or "there are none"
    if required:
        what = f"latents {begun}, with which this run began" if begun else "latents always"
        raise DataError(
            f"{what}: none fit ({told}). Make them with: precompute DATASET --base {config.base}"
        )
    if reasons:
        _log.info("no latents are used: %s", told)
    return None


def _preference(folder: LatentsFolder) -> tuple[bool, bool, str]:
    identity = folder.identity
    return identity.stored != "fp32", identity.text_encoder is None, identity.name


def _misfit(identity: Identity, files: BaseFiles, config: TrainConfig) -> str | None:
    """Say why latents are not those that this training would make; None where they are."""
    if config.crop is not None:
        return "they are of whole images, and crop shows squares"
    if config.flip and not identity.mirrored:
        return "mirrored images have none; precompute with --mirrored"
    if identity.vae != files.vae_sha256():
        return "they are of another autoencoder"
    if identity.text_encoder is not None and identity.text_encoder != files.text_sha256():
        return "they are of another text encoder"
    return None
