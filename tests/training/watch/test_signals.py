"""What a run tells is kept whole, once a step, through kills and resumes."""

from pathlib import Path

import pytest

from training.errors import TrainingError
from training.measure.adherence import References
from training.watch.signals import (
    LossRecord,
    ProbeRecord,
    ReferenceRecord,
    losses,
    probes,
    read_references,
    write_references,
)


def probe(step: int, gap: float | None = 0.01) -> ProbeRecord:
    return ProbeRecord(
        step=step, per_sample=(0.1, 0.3), adherence=0.2, normalised=0.05, condition_gap=gap
    )


def loss(step: int) -> LossRecord:
    return LossRecord(step=step, loss=0.28, images_per_second=12.5)


def test_what_is_appended_is_read_back(tmp_path):
    assert probes(tmp_path).read() == []
    records = [probe(0), probe(200, gap=None), probe(400)]
    for record in records:
        probes(tmp_path).append(record)
    assert probes(tmp_path).read() == records
    series = losses(tmp_path)
    for step in (10, 20, 30):
        series.append(loss(step))
    assert losses(tmp_path).read() == [loss(10), loss(20), loss(30)]


def test_a_resumed_run_forgets_what_lies_behind_its_checkpoint(tmp_path):
    series = probes(tmp_path)
    series.forget_after(0)  # a new run: there is nothing to forget
    for step in (0, 100, 200, 300):
        series.append(probe(step))
    series.forget_after(200)
    assert [one.step for one in series.read()] == [0, 100, 200]
    series.append(probe(300, gap=7.0))
    assert series.read()[-1] == probe(300, gap=7.0)


def test_a_line_that_a_kill_cut_off_is_none(tmp_path):
    series = probes(tmp_path)
    for step in (0, 100):
        series.append(probe(step))
    path = Path(tmp_path, "signals", "probes.jsonl")
    whole = path.read_bytes()
    for cut in range(1, 1 + len(whole) // 2):
        path.write_bytes(whole[:-cut])
        assert [one.step for one in probes(tmp_path).read()] == [0]
    series = probes(tmp_path)
    series.forget_after(100)
    series.append(probe(100))
    assert path.read_bytes() == whole


@pytest.mark.parametrize("line", ["{", "[]", '{"step": 1}', '{"stop": 1}'])
def test_a_damaged_line_is_named(tmp_path, line):
    probes(tmp_path).append(probe(0))
    path = Path(tmp_path, "signals", "probes.jsonl")
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(TrainingError, match=r"probes\.jsonl, line 2, is damaged"):
        probes(tmp_path).read()


def test_no_step_is_there_twice(tmp_path):
    probes(tmp_path).append(probe(100))
    for step in (0, 100):
        with pytest.raises(ValueError, match=f"has step 100, cannot add {step}"):
            probes(tmp_path).append(probe(step))


def test_references_are_kept(tmp_path):
    assert read_references(tmp_path) is None
    record = ReferenceRecord(
        metric="Canny F1 (1 px)",
        higher_is_better=True,
        keys=("a", "b"),
        references=References(baseline=0.16, real=0.99, reconstruction=0.93),
    )
    write_references(tmp_path, record)
    assert read_references(tmp_path) == record
