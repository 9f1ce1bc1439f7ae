"""What `doctor` says of a machine: small judgements on facts that `cluster.machine` collects."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pipeline.cluster.machine import OPENCVS, Machine
from pipeline.figures import human_bytes

Level: TypeAlias = Literal["ok", "warning", "fault"]

_DISK_FAULT, _DISK_WARNING = 1 << 30, 10 << 30  # a unit of 512 images takes about 0.1 GiB
_OBJECT_STORE = 128 << 20  # rows are tiny; below this Ray itself has no room to work
_SHOWN = ("torch", "ray", "numpy", "opencv-python-headless")
_MOVE_BITS = ("torch", "torchvision", "numpy", "opencv-python-headless", "pillow", "pyarrow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of a diagnosis.

    Attributes:
        name: what was looked at.
        level: ``ok``; ``warning``: works, with a drawback; ``fault``: a build would fail.
        found: what was seen.
        remedy: what to do about it; empty where nothing is to be done.
    """

    name: str
    level: Level
    found: str
    remedy: str = ""


def versions(machine: Machine) -> list[Check]:
    """Judge the installed packages against what this project requires: one line a bad one."""
    faults = [
        Check(
            name="versions",
            level="fault",
            found=f"{requirement} is required, {machine.installed.get(name, 'none')} is installed",
            remedy=f"pip install --constraint constraints.txt '{requirement}'",
        )
        for name, requirement in machine.unmet.items()
    ]
    shown = [f"{name} {machine.installed.get(name, 'absent')}" for name in _SHOWN]
    found = ", ".join([f"python {machine.python}", *shown])
    return faults or [Check(name="versions", level="ok", found=found)]


def opencv(machine: Machine) -> Check:
    """Find a second OpenCV: both own the folder cv2, and removing either breaks the other."""
    found = [name for name in OPENCVS if name in machine.installed]
    if found == ["opencv-python-headless"]:
        version = machine.installed["opencv-python-headless"]
        return Check(name="cv2", level="ok", found=f"opencv-python-headless {version} alone")
    remedy = f"pip uninstall -y {' '.join(found)}; " if found else ""
    return Check(
        name="cv2",
        level="fault",
        found=f"cv2 comes from {' and '.join(found) or 'no package'}; "
        "expected opencv-python-headless alone",
        remedy=remedy + "pip install --constraint constraints.txt opencv-python-headless",
    )


def mediapipe(machine: Machine) -> Check:
    """Find mediapipe, whose 1.x makes controlnet_aux fail to import."""
    version = machine.installed.get("mediapipe")
    if version is None:
        return Check(name="mediapipe", level="ok", found="not installed, as it must be")
    return Check(
        name="mediapipe",
        level="fault",
        found=f"mediapipe {version} is installed: with 1.x controlnet_aux cannot be imported",
        remedy="pip uninstall -y mediapipe",
    )


def gpus(machine: Machine, ray_gpus: float | None) -> Check:
    """Compare the GPUs that torch sees with those that Ray hands out (None: Ray is not up)."""
    kinds = ", ".join(f"{n} x {kind}" for kind, n in sorted(Counter(machine.gpus).items()))
    in_torch = len(machine.gpus)
    found = f"torch sees {kinds or 'none'}"
    if ray_gpus is not None:
        found += f", Ray {ray_gpus:g}"
    if ray_gpus is None or ray_gpus == in_torch:
        return Check(name="gpus", level="ok", found=found)
    if ray_gpus > in_torch:
        remedy = "install the driver and a torch of the same CUDA there, or start Ray with "
        return Check(
            name="gpus", level="fault", found=found, remedy=f"{remedy}--num-gpus={in_torch}"
        )
    remedy = f"start Ray there with --num-gpus={in_torch} to use all"
    return Check(name="gpus", level="warning", found=found, remedy=remedy)


def device(wanted: str, machines: Sequence[Machine], *, may_grow: bool) -> Check:
    """Say whether any machine has the device that the networks shall run on."""
    total = sum(len(machine.gpus) for machine in machines)
    if wanted == "cpu" or total:
        return Check(name="device", level="ok", found=f"{wanted} wanted; GPUs in all: {total}")
    return Check(
        name="device",
        level="warning" if may_grow else "fault",
        found="cuda wanted; no GPU is up",
        remedy="run doctor again when the autoscaler has brought a GPU worker"
        if may_grow
        else "build with --device cpu, or on a machine with a GPU",
    )


def weights(machine: Machine, needed: Sequence[str], *, all_needed: bool) -> Check:
    """Judge the checkpoints on a machine; one that no chosen recipe needs is only a warning."""
    missing = [name for name in machine.missing_weights if name in needed]
    here = len(needed) - len(missing)
    if not missing:
        found = f"{here} of {len(needed)} here" if needed else "none needed"
        return Check(name="weights", level="ok", found=found)
    names = " ".join(missing)
    return Check(
        name="weights",
        level="fault" if all_needed else "warning",
        found=f"{here} of {len(needed)} here; not here: {names.replace(' ', ', ')}",
        remedy=f"controlnet-factory weights fetch {names} --to FOLDER on shared storage, and "
        "CONTROLNET_FACTORY_WEIGHTS=FOLDER on every node",
    )


def captioner(machine: Machine, name: str, *, always: bool) -> Check:
    """Judge a captioner; one that only images without a text need is a warning where it lacks."""
    if name not in machine.missing_weights:
        return Check(name="captioner", level="ok", found=f"{name} is here")
    return Check(
        name="captioner",
        level="fault" if always else "warning",
        found=f"{name} is not here; " + ("all images need it" if always else "texts may suffice"),
        remedy=f"controlnet-factory weights fetch {name} --to FOLDER on shared storage, and "
        "CONTROLNET_FACTORY_WEIGHTS=FOLDER on every node; or --set captions.captioner=sidecar",
    )


def storage_works(machine: Machine, out: str) -> Check:
    """Judge the probe of the place that a dataset shall be written to."""
    if machine.storage_fault is None:
        found = f"{out}: written, created only once, read, removed"
        return Check(name="storage", level="ok", found=found)
    return Check(
        name="storage",
        level="fault",
        found=f"{out}: {machine.storage_fault}",
        remedy="choose a place that this user or role may write, read, list and delete in, and "
        "whose file system can create a file only if it is absent (local disk, S3)",
    )


def free_disk(machine: Machine) -> list[Check]:
    """Judge the room where attempts are written before they are committed: a line a folder."""
    return [_free(folder, free) for folder, free in machine.free_bytes.items()]


def _free(folder: str, free: int) -> Check:
    found = f"{human_bytes(free)} free in {folder}"
    if free >= _DISK_WARNING:
        return Check(name="disk", level="ok", found=found)
    return Check(
        name="disk",
        level="fault" if free < _DISK_FAULT else "warning",
        found=found,
        remedy="make room; TMPDIR moves temporary files; gc DATASET removes what died builds left",
    )


def object_store(machine: Machine, size: float) -> Check:
    """Judge the room of Ray's object store on a machine; bytes."""
    found = f"{human_bytes(int(size))}, shared memory {human_bytes(machine.shared_memory)}"
    if size < _OBJECT_STORE:
        remedy = f"start Ray there with --object-store-memory={_OBJECT_STORE}"
        return Check(name="object store", level="fault", found=found, remedy=remedy)
    if machine.shared_memory < size:
        remedy = "more shared memory (docker run --shm-size), else Ray puts objects on the disk"
        return Check(name="object store", level="warning", found=found, remedy=remedy)
    return Check(name="object store", level="ok", found=found)


def same_everywhere(machines: Sequence[Machine]) -> Check:
    """Find libraries whose versions differ between machines, which can move bits of maps."""
    different = []
    for name in _MOVE_BITS:
        found = sorted({machine.installed.get(name, "absent") for machine in machines})
        if len(found) > 1:
            different.append(f"{name} {' and '.join(found)}")
    if not different:
        return Check(name="same versions", level="ok", found=f"on {len(machines)} nodes")
    return Check(
        name="same versions",
        level="warning",
        found="; ".join(different),
        remedy="one image, or one constraints.txt, for all nodes: other versions may give other "
        "bytes, and each commit says which it was made with",
    )
