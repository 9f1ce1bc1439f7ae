"""Where the files of a base lie, and what they are."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from huggingface_hub import snapshot_download

from catalog.sample import sha256_hex
from catalog.storage import sha256_file
from training.errors import BaseModelError

PARTS = ("tokenizer", "text_encoder", "vae", "unet", "scheduler")
"""Folders of every base."""

SECOND_PARTS = ("tokenizer_2", "text_encoder_2")
"""Folders that SDXL has besides."""

_FILES = (".json", ".txt", "model.safetensors")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFiles:
    """A base on this machine.

    Attributes:
        folder: in diffusers' layout.
        vae: folder of its autoencoder; another than its own where that was asked for.
    """

    folder: Path
    vae: Path

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """Folders of its text encoders."""
        return tuple(
            part for part in ("text_encoder", "text_encoder_2") if (self.folder / part).is_dir()
        )

    def vae_sha256(self) -> str:
        """Return the hex sha256 of the autoencoder's weights; raises as `weights_sha256`."""
        return weights_sha256(self.vae)

    def text_sha256(self) -> str:
        """Return the hex sha256 of the weights of all text encoders; raises likewise."""
        each = [weights_sha256(self.folder / part) for part in self.text_encoders]
        return each[0] if len(each) == 1 else sha256_hex("".join(each).encode())


def locate_base(
    base: str,
    *,
    revision: str | None = None,
    local_files_only: bool = False,
    vae: str | None = None,
) -> BaseFiles:
    """Return where a base lies; a hub id's files are fetched, or found in the cache.

    Args and errors are those of `training.model.base.load_base`.
    """
    wanted = [f"{part}/*{end}" for part in (*PARTS, *SECOND_PARTS) for end in _FILES]
    folder = _folder(base, wanted, revision=revision, local_files_only=local_files_only)
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise BaseModelError(cannot_load(base, f"{', '.join(missing)} missing"))
    return BaseFiles(
        folder=folder, vae=folder / "vae" if vae is None else _vae(vae, local_files_only)
    )


def weights_sha256(folder: Path) -> str:
    """Return the hex sha256 of the file that holds a part's weights, in whatever type.

    Args:
        folder: of the part, such as ``vae``.

    Raises:
        BaseModelError: it has no such file.
    """
    for names in ("*model.safetensors", "*model.bin"):
        if files := sorted(folder.glob(names)):
            return sha256_hex("".join(_sha256(file) for file in files).encode())
    raise BaseModelError(f"{folder} holds no weights: no *model.safetensors")


def _sha256(file: Path) -> str:
    found = file.stat()
    return _hash_once(str(file), found.st_size, found.st_mtime_ns)


@cache  # of files of some 800 MB; size and time of change tell a changed file from a known one
def _hash_once(file: str, size: int, modified: int) -> str:
    return sha256_file(file)


def cannot_load(base: str, reason: str) -> str:
    """Return what to tell where a base cannot be loaded, with the ways on."""
    return (
        f"cannot load the base model {base!r}: {reason}\n"
        f"Expected a folder in diffusers layout ({', '.join(f'{part}/' for part in PARTS)}; for "
        f"SDXL {', '.join(f'{part}/' for part in SECOND_PARTS)} as well), or a hub id such as "
        "stable-diffusion-v1-5/stable-diffusion-v1-5.\n"
        "To fetch a hub id: hf download <id>; without a network, copy that cache here and set "
        "HF_HOME to it, or give the folder."
    )


def _vae(vae: str, local_files_only: bool) -> Path:
    """Return the folder of an autoencoder of its own: it, or a base's ``vae`` below it."""
    wanted = [f"{where}*{end}" for where in ("", "vae/") for end in _FILES]
    folder = _folder(vae, wanted, revision=None, local_files_only=local_files_only)
    for place in (folder, folder / "vae"):
        if (place / "config.json").is_file():
            return place
    raise BaseModelError(
        f"{vae!r} holds no autoencoder: expected config.json and diffusion_pytorch_model"
        ".safetensors in it, or in vae/ below it, as diffusers' AutoencoderKL saves them"
    )


def _folder(
    name: str, wanted: Sequence[str], *, revision: str | None, local_files_only: bool
) -> Path:
    if Path(name).is_dir():
        return Path(name)
    if not _HUB_ID.fullmatch(name):
        raise BaseModelError(cannot_load(name, "there is no such folder"))
    try:
        snapshot = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(wanted),
            ignore_patterns=["*.fp16.*", "*.non_ema.*"],
            local_files_only=local_files_only,
        )
    except (OSError, ValueError) as error:
        raise BaseModelError(cannot_load(name, f"{type(error).__name__}: {error}")) from error
    return Path(snapshot)
