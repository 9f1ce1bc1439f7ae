"""The part on photographs: a Canny dataset, its report, and conditions by real networks."""

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

from detectors import weights
from detectors.base import Spec
from pipeline.demo.walk import Step
from pipeline.sheet.sheet import specs_of

_PHOTOGRAPHS = {
    "astronaut.png": "a woman in an orange space suit before a flag and a rocket",
    "chelsea.png": "the face of a tabby cat",
    "coffee.png": "a cup of coffee on a wooden table",
    "hubble_deep_field.jpg": "many distant galaxies in a dark sky",
    "motorcycle_left.png": "a motorcycle in a garage",
    "retina.jpg": "the retina of an eye",
    "rocket.jpg": "a rocket on its launch pad",
}
_PORTRAIT = ("grace_hopper.jpg", "a portrait of a woman in a navy uniform")
_CONDITIONS = ("canny", "hed", "scribble", "openpose_light", "movenet", "lsd")
_RESOLUTION = "256"  # half the paper's, in a quarter of the time


def collect(folder: Path) -> int:
    """Copy the photographs out of their packages, a caption beside each; return their number."""
    import matplotlib
    import skimage

    samples = Path(skimage.__file__).parent / "data"
    found = {samples / name: text for name, text in _PHOTOGRAPHS.items()}
    found[Path(matplotlib.get_data_path()) / "sample_data" / _PORTRAIT[0]] = _PORTRAIT[1]
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in found.items():
        shutil.copyfile(path, folder / path.name)
        (folder / path.name).with_suffix(".txt").write_text(text)
    return len(found)


def conditions_here() -> tuple[list[str], list[str]]:
    """Return the conditions to show: those that this machine can make, and those that it lacks."""
    here = [spec.condition for spec in specs_of(_CONDITIONS) if _is_here(spec)]
    return here, [name for name in _CONDITIONS if name not in here]


def photograph_steps(folder: Path, conditions: Sequence[str], *, local: bool) -> list[Step]:
    """Return the steps, once the photographs are in `folder`/photographs.

    Args:
        folder: of the demonstration.
        conditions: to show, those that this machine can make.
        local: build without Ray.
    """
    photographs, dataset = str(folder / "photographs"), str(folder / "dataset")
    sheet, report = folder / "conditions.png", folder / "report.html"
    build = ["build", "canny", "--images", photographs, "--out", dataset]
    build += ["--set", f"image.resolution={_RESOLUTION}", "--set", "samples_per_unit=4"]
    maps = ["annotate", photographs, "--conditions", ",".join(conditions)]
    maps += ["--resolution", _RESOLUTION, "--out", str(folder / "conditions")]
    return [
        Step(
            title="A Canny dataset of the photographs",
            command=("controlnet-factory", *build, *(["--local"] if local else [])),
            makes=folder / "dataset" / "manifest.parquet",
        ),
        Step(
            title="Its four photographs of highest resolution, as a subset",
            command=("controlnet-factory", "subset", dataset, "--sizes", "4"),
            makes=folder / "dataset" / "subsets",
        ),
        Step(
            title="Its report",
            command=("controlnet-factory", "report", dataset, "--out", str(report)),
            makes=report,
        ),
        Step(
            title="Conditions of the photographs, by real networks where they are here",
            command=("controlnet-factory", *maps, "--sheet", str(sheet)),
            makes=sheet,
        ),
    ]


_PACKAGES = {"movenet": "ai_edge_litert", "dwpose": "onnxruntime"}


def _is_here(spec: Spec) -> bool:
    if spec.network is None:
        return True
    package = _PACKAGES.get(spec.condition)
    if package is not None and importlib.util.find_spec(package) is None:
        return False
    return all(weights.where(name) is not None for name in spec.network.checkpoints)
