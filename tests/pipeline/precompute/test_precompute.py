"""Latents of a dataset: made once, resumed by unit, and trained on with the very same losses."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from catalog.dataset import tombstones
from catalog.dataset.compact import compact
from catalog.dataset.dataset import Dataset
from catalog.dataset.latents import LatentsFolder, UnitLatents, find_latents, image_name
from catalog.errors import DatasetError
from pipeline.build.build import BuildResult, build
from pipeline.build.local import run_local
from pipeline.precompute.encoder import Precompute, identity
from pipeline.precompute.precompute import precompute, run_here
from pipeline.recipe.execution import Execution
from pipeline.recipe.made_by import condition_spec
from pipeline.recipe.recipe import load_recipe
from pipeline.scan.source import Inputs
from tests.pipeline.silent import Silent
from tests.random_base import write_random_base
from tests.rules import ANY_LOOK
from tests.training.stepping import Killed, Steps, assert_same_state, forget_accelerate
from training.errors import DataError, ResumeMismatch
from training.run.loop import train
from training.settings.config import TrainConfig


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("bases") / "random"
    write_random_base(str(folder), resolutions=2, layers=1)
    return str(folder)


@pytest.fixture(scope="module")
def built(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten samples of 64x64 in four units."""
    out = str(tmp_path_factory.mktemp("built") / "d")
    recipe = load_recipe("canny", ["image.resolution=64", "samples_per_unit=3", *ANY_LOOK])
    inputs, execution = Inputs(images=[str(pictures)]), Execution(threads=2)
    made: BuildResult = build(recipe, out, inputs, execution, executor=run_local, observer=Silent())
    assert (made.status.samples, made.status.units) == (10, 4)
    return out


@pytest.fixture
def dataset(built: str, tmp_path: Path) -> str:
    shutil.copytree(built, tmp_path / "d")
    return str(tmp_path / "d")


@pytest.fixture(autouse=True)
def _fresh_accelerate() -> Iterator[None]:
    yield
    forget_accelerate()


def request_of(dataset: str, base: str, **changes: object) -> Precompute:
    return Precompute.model_validate(
        {"dataset": dataset, "base": base, "stored": "fp32", **changes}
    )


def settings(dataset: str, base: str, out: Path, **changes: object) -> TrainConfig:
    fields = {
        "dataset": dataset,
        "base": base,
        "out": str(out),
        "condition": "canny",
        "steps": 4,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "checkpoint_every": 2,
        "held_out": 2,
        "probe_every": 0,
    }
    return TrainConfig.model_validate({**fields, **changes})


def run(config: TrainConfig, die_at: int | None = None) -> dict[int, float]:
    steps = Steps(die_at=die_at)
    spec = condition_spec(Dataset.open(config.dataset), config.condition)
    train(config, steps, spec=spec)
    return steps.losses


def test_what_is_encoded_is_not_encoded_again(dataset: str, base: str) -> None:
    asked: list[Sequence[str]] = []

    def stops(request: Precompute, pending: Sequence[str]) -> Iterator[UnitLatents]:
        asked.append(pending)
        yield from list(run_here(request, pending[:1]))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        precompute(request_of(dataset, base), executor=stops)
    told: list[tuple[int, int]] = []
    made = precompute(
        request_of(dataset, base), executor=run_here, progress=lambda *now: told.append(now)
    )
    assert len(asked[0]) == 4
    assert (made.units, made.units_done, made.images) == (3, 4, 10)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    before = {path: path.stat().st_mtime_ns for path in Path(made.folder).rglob("*")}
    again = precompute(request_of(dataset, base), executor=run_here)
    assert (again.units, again.images) == (0, 10)
    assert {path: path.stat().st_mtime_ns for path in Path(made.folder).rglob("*")} == before


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("flip", [False, True])
def test_losses_are_the_same_to_the_last_bit(
    dataset: str, base: str, tmp_path: Path, workers: int, flip: bool
) -> None:
    one = settings(dataset, base, tmp_path / "images", flip=flip)
    losses = run(one)
    precompute(request_of(dataset, base, mirrored=flip, batch_size=2), executor=run_here)
    other = one.model_copy(
        update={"out": str(tmp_path / "latents"), "latents": "always", "num_workers": workers}
    )
    with pytest.raises(Killed):
        run(other, die_at=3)
    run(other)  # goes on from step 2
    assert_same_state(tmp_path / "images", tmp_path / "latents")
    assert list(losses) == [1, 2, 3, 4]


def test_fp16_on_disk_stays_near(dataset: str, base: str, tmp_path: Path) -> None:
    losses = run(settings(dataset, base, tmp_path / "images"))
    precompute(request_of(dataset, base, stored="fp16"), executor=run_here)
    near = run(settings(dataset, base, tmp_path / "latents"))
    assert json.loads((tmp_path / "latents/train.json").read_bytes())["identity"]["latents"]
    assert near == pytest.approx(losses, rel=1e-3)
    assert near != losses


def test_text_may_be_left_out(dataset: str, base: str, tmp_path: Path) -> None:
    losses = run(settings(dataset, base, tmp_path / "images"))
    precompute(request_of(dataset, base, text=False, batch_size=2), executor=run_here)
    assert run(settings(dataset, base, tmp_path / "latents", latents="always")) == losses


def test_a_run_keeps_to_what_it_began_with(dataset: str, base: str, tmp_path: Path) -> None:
    run(settings(dataset, base, tmp_path / "images", steps=2))
    precompute(request_of(dataset, base), executor=run_here)
    run(settings(dataset, base, tmp_path / "images"))
    with pytest.raises(ResumeMismatch, match="latents: None there"):
        run(settings(dataset, base, tmp_path / "images", steps=5, latents="always"))
    run(settings(dataset, base, tmp_path / "latents", steps=2))
    shutil.rmtree(Path(dataset, "latents"))
    with pytest.raises(DataError, match="with which this run began: none fit"):
        run(settings(dataset, base, tmp_path / "latents"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"flip": True}, "--mirrored"),
        ({"crop": 32}, "crop shows squares"),
        ({"base": "other"}, "another autoencoder"),
    ],
)
def test_what_does_not_fit_is_not_taken(
    dataset: str, base: str, tmp_path: Path, changes: dict[str, object], why: str
) -> None:
    if "base" in changes:
        changes = {"base": str(tmp_path / "other")}
        write_random_base(str(tmp_path / "other"), seed=1, resolutions=2, layers=1)
    precompute(request_of(dataset, base), executor=run_here)
    config = settings(dataset, base, tmp_path / "run", steps=1)
    config = config.model_copy(update=changes)
    run(config)
    assert json.loads((tmp_path / "run/train.json").read_bytes())["identity"]["latents"] is None
    again = config.model_copy(update={"out": str(tmp_path / "always"), "latents": "always"})
    with pytest.raises(DataError, match=why):
        run(again)


def test_a_subsets_units_are_not_enough_for_the_whole(
    dataset: str, base: str, tmp_path: Path
) -> None:
    Dataset.open(dataset).write_subset(3, policy="top", seed=0)
    made = precompute(request_of(dataset, base), executor=run_here, subset="3")
    assert (made.units, made.images) == (1, 3)
    with pytest.raises(DataError, match="of 8 samples have none"):
        run(settings(dataset, base, tmp_path / "all", latents="always"))
    run(settings(dataset, base, tmp_path / "few", subset="3", held_out=0, latents="always"))


def test_a_takedown_takes_the_latents_too(dataset: str, base: str) -> None:
    precompute(request_of(dataset, base), executor=run_here)
    opened = Dataset.open(dataset)
    key = opened.view().keys()[0]
    tombstones.bury(opened.uri, [key])
    compact(opened)
    (folder,) = find_latents(dataset)
    assert folder.open() is None
    assert len(list(Path(folder.uri).glob("*.safetensors"))) == 3
    made = precompute(request_of(dataset, base), executor=run_here)
    assert (made.units, made.images) == (1, 9)
    left = LatentsFolder(dataset, identity(request_of(dataset, base))).open()
    assert left is not None
    with pytest.raises(DatasetError):
        left.array(image_name(key))
    assert np.isfinite(left.array(image_name(opened.view().keys()[0]))).all()
