"""Where a captioner's checkpoint is: a local folder, or a repository of the hub at a commit.

A repository is looked for in the folders of CONTROLNET_FACTORY_WEIGHTS (several are separated as in
PATH), below the last part of its name, then in the hub client's own cache, then on the hub. Nothing
is ever made up: what is not whole is not loaded.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from captioning.errors import CaptionError, WeightsError

FOLDERS = "CONTROLNET_FACTORY_WEIGHTS"
BASE = "Salesforce/blip-image-captioning-base"
LARGE = "Salesforce/blip-image-captioning-large"

NAMES = {"blip": BASE, "blip_large": LARGE}
"""Short names of what can be fetched."""

_INDEX = "model.safetensors.index.json"  # of weights in several files
_WEIGHTS = ("model.safetensors", _INDEX, "pytorch_model.bin")  # one; the first goes first
_SHARDS = "model-*.safetensors"
_CONFIG = "config.json"
_TOKENS = ("tokenizer.json", "vocab.txt", "vocab.json")
_BESIDE = (
    _CONFIG,
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "video_preprocessor_config.json",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A repository's commit, and the sha256 of its files where they are known; hex."""

    revision: str
    files: dict[str, str] = field(default_factory=dict)


PINS = {
    # Hashes from a public manifest that pins them.
    BASE: Pin(
        revision="82a37760796d32b1411fe092ab5d4e227313294b",
        files={
            "config.json": "f7846f82f4e2c4a2ccbab9ae8b0e44873540a271a76a1288effd078180c13a82",
            "preprocessor_config.json": (
                "065c10ec97edc5081fbd9655b3d9d25e2647ea6d5dab873325e88eed12d80a7d"
            ),
            "pytorch_model.bin": "d6638651a5526cc2ede56f2b5104d6851b0755816d220e5e046870430180c767",
            "special_tokens_map.json": (
                "b6d346be366a7d1d48332dbc9fdf3bf8960b5d879522b7799ddba59e76237ee3"
            ),
            "tokenizer.json": "d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66",
            "tokenizer_config.json": (
                "5c7f96096284c55e539eff95f4451c19efc34258ddb975a4400d052b77301e5e"
            ),
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
    ),
    LARGE: Pin(revision="2227ac38c9f16105cb0412e7cab4759978a8fd90"),
}


def is_folder(model: str) -> bool:
    """Say whether a model's name is a path; what lies in the working directory plays no part."""
    return model.startswith(("/", "./", "../", "~"))


def require_pin(model: str, revision: str | None) -> None:
    """Raise CaptionError where a name and revision do not say which bytes are meant."""
    if is_folder(model):
        if revision is not None:
            raise CaptionError(f"the folder {model} has no revision: leave revision out")
    elif model.count("/") != 1:
        raise CaptionError(
            f"{model!r} is no hub id such as {BASE}; a folder is written as a path, ./{model}"
        )
    elif revision is None and model not in PINS:
        raise CaptionError(
            f"{model} is not pinned here (that are {', '.join(PINS)}): "
            "give the commit, revision: <40 hex characters>"
        )


def identity(model: str, revision: str | None) -> str:
    """Return what stands for a checkpoint: a repository's commit, or a folder's sha256.

    Raises:
        WeightsError: a folder that is not there or not whole.
    """
    if not is_folder(model):
        return f"{model}@{_pin(model, revision).revision}"
    folder = Path(model).expanduser()
    if wrong := _fault(folder):
        raise WeightsError(_no_folder(folder, wrong))
    hashes = [f"{name} {_sha256(folder / name)}" for name in _files(folder)]
    return "sha256:" + hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def locate(model: str, revision: str | None, *, download: bool = True) -> Path:
    """Return the folder of a checkpoint, whole; may download it where `download` allows.

    Raises:
        WeightsError: it is not here and cannot be had; the message says what was tried.
    """
    if is_folder(model):
        folder = Path(model).expanduser()
        if wrong := _fault(folder):
            raise WeightsError(_no_folder(folder, wrong))
        return folder
    pin, tried = _pin(model, revision), {}
    for label, attempt in _attempts(model, pin, download):
        try:
            return attempt()
        except WeightsError as error:
            tried[label] = str(error)
    raise WeightsError(_not_to_be_had(model, pin, tried))


def fetch(model: str, to: Path | None = None) -> Path:
    """Get a pinned repository into the hub client's cache, or into a folder to carry elsewhere.

    Args:
        model: a hub id of `PINS`.
        to: where CONTROLNET_FACTORY_WEIGHTS shall lead; the files lie in a folder of the model's
            name below it.

    Raises:
        WeightsError: it cannot be had.
    """
    found = locate(model, None)
    if to is None:
        return found
    folder = to / model.partition("/")[2]
    folder.mkdir(parents=True, exist_ok=True)
    for name in _files(found):
        shutil.copyfile(found / name, folder / name)
    return folder


def where(model: str, revision: str | None) -> Path | None:
    """Return the folder of a checkpoint that is on this machine, or None; asks no network."""
    try:
        return locate(model, revision, download=False)
    except WeightsError:
        return None


def _pin(model: str, revision: str | None) -> Pin:
    known = PINS.get(model)
    if known is not None and revision in (None, known.revision):
        return known
    assert revision is not None, model  # `require_pin` saw to it
    return Pin(revision=revision)


def _attempts(model: str, pin: Pin, download: bool) -> Iterator[tuple[str, Callable[[], Path]]]:
    named = os.environ.get(FOLDERS, "").split(os.pathsep)
    for root in (Path(folder).expanduser() for folder in named if folder):
        folder = root / model.partition("/")[2]
        yield f"{folder} ({FOLDERS})", partial(_in_folder, folder, pin)
    yield "the hub client's cache", partial(_from_hub, model, pin.revision, download=False)
    if download:
        yield "Hugging Face hub", partial(_from_hub, model, pin.revision, download=True)


def _in_folder(folder: Path, pin: Pin) -> Path:
    if wrong := _fault(folder):
        raise WeightsError(wrong)
    if not pin.files:
        raise WeightsError("its hashes are not known here: name the folder itself as the model")
    for name in _files(folder):
        if name not in pin.files:
            raise WeightsError(f"{name} is no file of the pinned commit")
        if _sha256(folder / name) != pin.files[name]:
            raise WeightsError(f"{name} has another sha256 than {pin.files[name]}")
    return folder


def _from_hub(model: str, revision: str, *, download: bool) -> Path:
    """Return a snapshot; HF_HUB_OFFLINE and HF_HOME mean what they always do."""
    from huggingface_hub import is_offline_mode, snapshot_download

    if download and is_offline_mode():
        raise WeightsError("HF_HUB_OFFLINE is set")
    reason = "it has no weights"
    for name in _WEIGHTS:
        try:
            found = snapshot_download(
                model,
                revision=revision,
                allow_patterns=[*_BESIDE, name, *([_SHARDS] if name == _INDEX else [])],
                local_files_only=not download,
            )
        except Exception as error:  # its errors share no base, and each is only one place's reason
            said = _first_cause(error) if download else "it has no snapshot of this commit"
            raise WeightsError(said) from error
        reason = _fault(Path(found)) or ""
        if not reason:
            return Path(found)
    raise WeightsError(reason)


def _files(folder: Path) -> list[str]:
    """Return the files that are read of a whole folder: one with weights, and what is beside it."""
    weights = next(name for name in _WEIGHTS if (folder / name).is_file())
    shards = _shards(folder) if weights == _INDEX else []
    return [weights, *shards, *(name for name in _BESIDE if (folder / name).is_file())]


def _shards(folder: Path) -> list[str]:
    """Return the names of the files that the index of weights in several files names."""
    index = json.loads((folder / _INDEX).read_bytes())
    return sorted(set(index["weight_map"].values()))


def _fault(folder: Path) -> str | None:
    if not folder.is_dir():
        return "not there"
    if not any((folder / name).is_file() for name in _WEIGHTS):
        return f"it has neither {' nor '.join(_WEIGHTS)}"
    if not (folder / _CONFIG).is_file():
        return f"it has no {_CONFIG}"
    if not any((folder / name).is_file() for name in _TOKENS):
        return f"it has neither {' nor '.join(_TOKENS)}"
    lacking = [name for name in _files(folder) if not (folder / name).is_file()]
    if lacking:
        return f"it lacks {', '.join(lacking)}, which {_INDEX} names"
    return None


def _sha256(path: Path) -> str:
    found = path.stat()
    return _hash_once(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=64)
def _hash_once(path: Path, size: int, modified: int) -> str:
    """Hash a file; size and time of change are there to tell a changed file from a known one."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _no_folder(folder: Path, wrong: str) -> str:
    return (
        f"no captioner in the folder {folder}: {wrong}; expected what the hub's repository holds, "
        f"for example: hf download {BASE} --revision {PINS[BASE].revision} --local-dir {folder}"
    )


def _not_to_be_had(model: str, pin: Pin, tried: dict[str, str]) -> str:
    name = model.partition("/")[2]
    lines = [f"the captioner {model} at {pin.revision[:8]} is not here and cannot be had:"]
    lines += [] if os.environ.get(FOLDERS) else [f"  {FOLDERS} is not set"]
    lines += [f"  {label}: {reason}" for label, reason in tried.items()]
    fetch = f"hf download {model} --revision {pin.revision} --local-dir FOLDER/{name}"
    lines += [f"Where there is a network: {fetch}"]
    lines += (
        [f"Then, here: {FOLDERS}=FOLDER"]
        if pin.files
        else [f"Then, in the recipe: captions.model: FOLDER/{name}, written as a path"]
    )
    return "\n".join(lines)
