"""Killed at any moment, also inside a checkpoint, a run goes on bit for bit."""

import random
from pathlib import Path

import pytest

from catalog.dataset.commits import Commit, StoredFile
from catalog.dataset.latents import LatentsFolder, image_name
from catalog.images import decode_image
from tests.training.rank import SERVER, train_rank
from tests.training.stepping import Steps, assert_same_state, rows_of
from training.model.base import Base
from training.model.latents import identity_of, image_moments, text_embeddings
from training.run.checkpoint import WEIGHTS
from training.run.loop import train_on
from training.watch.signals import losses

ALONE = {"ACCELERATE_USE_CPU": "true"}
PHASES = [
    {"trains": "mid_only", "until": 2},
    {"trains": "full", "until": 4},
    {"trains": "unlocked", "learning_rate": 1e-3},
]
SETTINGS = {"steps": 9, "checkpoint_every": 1, "phases": PHASES, "ema": 0.5}


def write_latents(dataset: Path, base: Base, view) -> None:
    """Keep the latents and texts of a view without files, as one unit."""
    made = {"precision": "fp32", "stored": "fp32", "text": True, "mirrored": False}
    folder = LatentsFolder(str(dataset), identity_of(base.files, **made))
    folder.claim()
    arrays = {}
    for row in range(len(view)):
        sample = view.read(row)
        image = decode_image(sample.image)
        arrays[image_name(sample.key)] = image_moments(base, [image, image])[0]
        arrays |= text_embeddings(base, ["", sample.caption])
    file = StoredFile(name="000000.tar", bytes=1, sha256="ab")
    unit = Commit(
        unit_id="0" * 32,
        index=0,
        fingerprint="f",
        shard=file,
        rows=file,
        counts={},
        environment={},
    )
    folder.commit(unit, arrays, len(view))
    folder.fold([unit])


@pytest.mark.parametrize("kind", ["images", "latents", "sizes"])
def test_a_run_that_is_killed_again_and_again(config_of, view_type, base, tmp_path, kind):
    """With phases, an average and a checkpoint a step; of one size, encoded, and of two sizes."""
    sizes = ((64, 64), (64, 128)) if kind == "sizes" else ((64, 64),)
    view = view_type(rows=8, sizes=sizes)
    dataset = tmp_path / "dataset"
    if kind == "latents":
        write_latents(dataset, base, view)
    config = config_of(tmp_path / "straight", **SETTINGS)
    straight = Steps()
    train_on(config, rows_of(view), straight)

    draw = random.Random(kind)
    latents = str(dataset) if kind == "latents" else None
    choice = "always" if latents else "never"
    settings = config.model_copy(update={"out": str(tmp_path / "killed"), "latents": choice})
    told = settings.model_dump(mode="json")
    kills = 0
    while True:
        said = tmp_path / "said"
        process = SERVER.Process(
            target=train_rank, args=(0, ALONE, said, told, view, None, latents)
        )
        process.start()
        process.join(draw.uniform(0.2, 1.6) if kills < 4 else 120)
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
    assert process.exitcode == 0, said.read_text()
    assert kills >= 2
    assert_same_state(tmp_path / "straight", tmp_path / "killed")
    for file in (WEIGHTS, f"unet/{WEIGHTS}"):
        one, other = (tmp_path / run / file for run in ("straight", "killed"))
        assert one.read_bytes() == other.read_bytes()
    kept = {record.step: record.loss for record in losses(tmp_path / "killed").read()}
    assert kept == straight.losses
