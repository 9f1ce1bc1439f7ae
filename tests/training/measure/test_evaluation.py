"""An evaluation's table, files and notes."""

import json

import numpy as np
import pytest

from catalog.images import decode_image
from tests.training.probing import Obedient, blind, make_probe
from training.errors import DataError
from training.measure.evaluation import (
    GENERATED,
    REAL,
    RECONSTRUCTED,
    SHUFFLED,
    UNCONTROLLED,
    evaluate,
    write_evaluation,
)
from training.measure.picture_quality import ClipScore, Inception, Missing

NO_CLIP = Missing(why="CLIP score: not measured, no clip")
NO_INCEPTION = Missing(why="FID: not measured, no inception")
SETTINGS = {"run": "runs/canny", "seed": 7}


class BrightClip(ClipScore):
    """Likes bright pictures."""

    def __init__(self):
        self.name = "brightness"

    def __call__(self, pictures, prompts):
        assert len(pictures) == len(prompts)
        return float(np.mean(pictures))


class Colours(Inception):
    """Mean colour as features."""

    def __init__(self):
        pass

    def __call__(self, pictures):
        return np.stack([picture.mean(axis=(0, 1)) for picture in pictures])


def run(base, probe, *, clip=NO_CLIP, inception=NO_INCEPTION):
    return evaluate(
        probe, Obedient(probe), blind, base, clip=clip, inception=inception, settings=SETTINGS
    )


def test_the_rows_of_an_obedient_run(base):
    probe = make_probe(*[64] * 10)
    evaluation, _ = run(base, probe)
    rows = {row.pictures: row for row in evaluation.rows}
    assert list(rows) == [GENERATED, SHUFFLED, UNCONTROLLED, RECONSTRUCTED, REAL]
    assert (rows[GENERATED].mean, rows[GENERATED].normalised) == (1.0, 1.0)
    assert (rows[REAL].mean, rows[REAL].normalised) == (1.0, 1.0)
    assert rows[UNCONTROLLED].normalised == 0
    assert rows[SHUFFLED].normalised < 0.3
    assert rows[UNCONTROLLED].mean == probe.measure(blind).mean
    assert rows[UNCONTROLLED].std > 0
    assert evaluation.per_sample == {f"{index:032x}": 1.0 for index in range(10)}


def test_networks_that_are_missing_are_told_and_not_invented(base):
    evaluation, _ = run(base, make_probe(64, 64))
    assert evaluation.notes == (f"{NO_CLIP.why}.", f"{NO_INCEPTION.why}.")
    assert all(row.clip_score is row.fid is None for row in evaluation.rows)
    assert "| - | - |" in evaluation.to_markdown()


def test_clip_and_fid_of_each_kind_of_picture(base):
    evaluation, _ = run(base, make_probe(*[64] * 4), clip=BrightClip(), inception=Colours())
    rows = {row.pictures: row for row in evaluation.rows}
    assert rows[GENERATED].fid == pytest.approx(0, abs=1e-9)
    assert rows[UNCONTROLLED].fid > 1
    assert rows[REAL].fid is None
    assert rows[GENERATED].clip_score == rows[REAL].clip_score != rows[UNCONTROLLED].clip_score
    assert evaluation.notes[0] == "CLIP score by brightness."
    assert "FID of 4 pictures is too high" in evaluation.notes[-1]


def test_one_sample_has_no_other_condition(base):
    evaluation, _ = run(base, make_probe(64), inception=Colours())
    assert SHUFFLED not in [row.pictures for row in evaluation.rows]
    assert "No shuffled conditions" in evaluation.notes[0]
    assert all(row.fid is None for row in evaluation.rows)


def test_samples_that_tell_nothing_are_refused(base):
    probe = make_probe(64, 64)
    obedient = Obedient(probe)
    with pytest.raises(DataError, match="cannot show adherence"):
        evaluate(
            probe,
            obedient,
            obedient,
            base,
            clip=NO_CLIP,
            inception=NO_INCEPTION,
            settings=SETTINGS,
        )


def test_an_evaluation_is_written(base, tmp_path):
    evaluation, picture = run(base, make_probe(*[64] * 10))
    write_evaluation(tmp_path / "evaluation", evaluation, picture)
    kept = json.loads((tmp_path / "evaluation" / "evaluation.json").read_bytes())
    assert kept["rows"][0]["pictures"] == GENERATED
    assert kept["settings"] == SETTINGS
    text = (tmp_path / "evaluation" / "evaluation.md").read_text()
    assert text.startswith("# Evaluation of runs/canny\n")
    assert "| generated | 1.000 | 0.000 | 1.000 | - | - |" in text
    grid = decode_image((tmp_path / "evaluation" / "grid.png").read_bytes())
    assert (grid == picture).all()
    assert (
        8 * 192 < grid.shape[0] < 9 * 192 + 8 * 40
    )  # eight of the ten samples, three times as large
