"""A run passes damaged samples over, says so, and stays exact."""

import json
from pathlib import Path

import pytest

from tests.training.damaged import DamagedView, SilentView
from tests.training.stepping import Killed, Steps, assert_same_state, rows_of
from training.data import reading
from training.data.reading import Damage
from training.errors import DataError, DataUnavailable
from training.run.checkpoint import list_checkpoints
from training.run.damage import FILE, FLOOR, DamageLog
from training.run.loop import train_on

VIEW = DamagedView(rows=8, changed=(2,), undecodable=(6,))


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / FILE).read_text().splitlines()]


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_samples_are_passed_over_bit_for_bit(make_config, tmp_path, workers):
    changes = {"steps": 6, "gradient_accumulation": 2}  # an epoch and a half
    straight = make_config(out=str(tmp_path / "straight"), **changes)
    assert train_on(straight, rows_of(VIEW), Steps()).damaged == 2
    broken = make_config(out=str(tmp_path / "broken"), num_workers=workers, **changes)
    with pytest.raises(Killed):
        train_on(broken, rows_of(VIEW), Steps(die_at=3))
    assert train_on(broken, rows_of(VIEW), Steps()).damaged == 2
    assert_same_state(tmp_path / "straight", tmp_path / "broken")
    for run in ("straight", "broken"):
        assert sorted(line["row"] for line in lines(tmp_path / run)) == [2, 6]


def test_each_is_told_once(make_config, caplog):
    train_on(make_config(steps=12), rows_of(VIEW), Steps())
    told = [one.message for one in caplog.records if one.message.startswith("passed over")]
    assert len(told) == 2
    assert f"sample {6:032x}: cannot decode" in " ".join(told)


def test_at_share_0_the_first_ends_the_run(make_config, tmp_path):
    with pytest.raises(DataError, match=r"damaged .*max_damaged_share 0 .*restore the shards"):
        train_on(make_config(steps=12, max_damaged_share=0), rows_of(VIEW), Steps())
    assert lines(tmp_path / "run")


def damage(row: int) -> Damage:
    return Damage(key=f"{row:032x}", row=row, error="changed")


@pytest.mark.parametrize(("share", "read", "borne"), [(0.01, 8, FLOOR), (0.01, 2000, 20)])
def test_too_many_are_an_error(tmp_path, share, read, borne):
    log = DamageLog(tmp_path, rows=2000, share=share, writes=True)
    log.add([damage(row) for row in range(borne)], read)
    log.add([damage(0)], 0)  # known
    with pytest.raises(DataError, match=rf"{borne + 1} of the {read:,} samples"):
        log.add([damage(borne)], 0)
    assert len(log.keys()) == borne + 1


def test_a_later_command_counts_anew_and_writes_no_line_twice(tmp_path):
    for start in (0, 5):
        log = DamageLog(tmp_path, rows=50, share=0.01, writes=True)
        log.add([damage(row) for row in range(start, start + 9)], 8)
    assert [line["row"] for line in lines(tmp_path)] == list(range(14))
    silent = DamageLog(tmp_path, rows=50, share=0.01, writes=False)
    silent.add([damage(40)], 8)
    assert len(silent.keys()) == 14


@pytest.mark.parametrize("workers", [0, 1])
def test_storage_that_is_silent_for_good_leaves_the_checkpoint(
    make_config, tmp_path, monkeypatch, workers
):
    monkeypatch.setattr(reading, "PAUSES", (0.0, 0.0))
    config = make_config(num_workers=workers)
    with pytest.raises(DataUnavailable) as told:
        train_on(config, rows_of(SilentView(times=9)), Steps())
    assert str(told.value).startswith("cannot read sample")
    assert [one.step for one in list_checkpoints(tmp_path / "run")] == [0]
    assert not (tmp_path / "run" / FILE).exists()
