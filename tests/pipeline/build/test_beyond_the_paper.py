"""Recipes beyond the paper go through a build: real photographs, stand-ins of random weights."""

from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import verify
from catalog.png import decode_png
from detectors import weights
from detectors.networks import depth_anything, dwpose, eomt, tipsv2, vitpose
from pipeline.build.build import BuildResult
from pipeline.recipe.recipe import load_recipe
from tests.detectors import test_depth_anything, test_eomt, test_normal_tipsv2, test_vitpose
from tests.detectors.conftest import controlnet_aux_quiet as controlnet_aux_quiet
from tests.detectors.test_teed import random_weights as random_weights
from tests.photographs import photographs
from tests.planted_dwpose import save_boxes, save_pose
from tests.rules import ANY_LOOK

PEOPLE = [(60, 40, 200, 230, 0.9, 0), (10, 10, 90, 200, 0.8, 0)]


def _depth_anything(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(depth_anything, "resolve", lambda _: test_depth_anything.saved(folder / "d"))


def _eomt(folder: Path, patch: pytest.MonkeyPatch) -> None:
    test_eomt.saved(folder / "eomt_ade20k_large")
    patch.setenv(weights.FOLDERS, str(folder))
    patch.setattr(eomt, "resolve", weights.resolve)


def _normal_tipsv2(folder: Path, patch: pytest.MonkeyPatch) -> None:
    test_normal_tipsv2.saved(folder / "tipsv2_b14_dpt")
    patch.setenv(weights.FOLDERS, str(folder))
    patch.setattr(tipsv2, "resolve", weights.resolve)


def _vitpose(folder: Path, patch: pytest.MonkeyPatch) -> None:
    test_vitpose.save_boxes(folder / "rtdetr_r50vd")
    test_vitpose.save_pose(folder / "vitpose_plus_base")
    patch.setenv(weights.FOLDERS, str(folder))
    patch.setattr(vitpose, "resolve", lambda name: folder / name)


def _dwpose(folder: Path, patch: pytest.MonkeyPatch) -> None:
    save_boxes(folder / "yolox_l", PEOPLE)
    save_pose(folder / "dwpose_l_384")
    patch.setattr(dwpose, "resolve", lambda name: folder / name)


def _teed(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Its weights are put in place by the fixture `random_weights`."""


@pytest.fixture
def four_photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for path in photographs()[20:24]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.usefixtures("controlnet_aux_quiet", "random_weights")
@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("depth_anything", _depth_anything),
        ("seg_eomt", _eomt),
        ("normal_tipsv2", _normal_tipsv2),
        ("vitpose", _vitpose),
        ("dwpose", _dwpose),
        ("teed", _teed),
    ],
)
def test_every_photograph_is_a_sample_or_a_reject(
    name: str,
    plant: Callable[[Path, pytest.MonkeyPatch], None],
    four_photographs: Path,
    tmp_path: Path,
    make: Callable[..., BuildResult],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "weights").mkdir()
    plant(tmp_path / "weights", monkeypatch)
    changes = ["image.resolution=256", "captions.captioner=sidecar", *ANY_LOOK]
    if name == "vitpose":  # random weights find people anywhere, and few joints of them
        changes += ["detectors.0.fraction=0"]
    recipe = load_recipe(name, changes)
    status = make(four_photographs, tmp_path / "d", recipe=recipe).status
    assert status.samples + sum(status.rejects.values()) == 4
    assert not [reject for reject in status.rejects if reject.startswith("failed:")]
    assert status.samples
    dataset = Dataset.open(str(tmp_path / "d"))
    assert verify(dataset) == []
    condition = recipe.detectors[0].condition
    view = dataset.view()
    assert all(decode_png(view.read(at).conditions[condition]).any() for at in range(len(view)))
