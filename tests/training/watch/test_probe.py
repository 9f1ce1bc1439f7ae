"""A run that does not obey and then does, probed, killed and resumed."""

from functools import partial
from pathlib import Path

import pytest

from catalog.images import decode_image
from tests.training.probing import SPEC, Obedient, Photographs, blind, heeding, make_probe
from training.errors import DataError
from training.measure.condition_gap import gap_inputs
from training.measure.convergence import Convergence
from training.model.controlnet import new_controlnet
from training.model.denoiser import Controlled
from training.model.objective import denoising_loss
from training.sample.for_probes import controlled
from training.watch.probe import open_run_probe, prepare_run_probe
from training.watch.signals import best_step, probes, read_references

SIZES = [64] * 8


def measure(run: Path, base, steps, *, obeys_from: int):
    """Probe a run at `steps`; it heeds its condition from `obeys_from` on."""
    probe = make_probe(*SIZES)
    gap = gap_inputs(base, probe.samples, seed=0)
    opened = open_run_probe(run, probe, blind, base, gap=gap)
    for step in steps:
        obeys = step >= obeys_from
        opened.measure(
            step,
            Obedient(probe) if obeys else blind,
            lambda given, obeys=obeys: heeding(gap)(given) * obeys,
        )
    return opened


def test_the_sudden_convergence_of_a_run(base, tmp_path):
    opened = measure(tmp_path, base, range(0, 700, 100), obeys_from=300)
    assert opened.convergence == Convergence(before=200, step=300, rise=pytest.approx(1.0))
    records = probes(tmp_path).read()
    assert [record.normalised for record in records] == pytest.approx([0, 0, 0, 1, 1, 1, 1])
    gaps = [record.condition_gap for record in records]
    assert gaps[:3] == [0] * 3
    assert min(gaps[3:]) > 0
    drawn = {path.name for path in (tmp_path / "plots").iterdir()}
    assert drawn == {"adherence.png", "condition_gap.png", "progress.png"}
    grid = decode_image((tmp_path / "plots" / "progress.png").read_bytes())
    assert grid.shape[1] > 8 * 192  # condition, no control and six steps
    assert len(list((tmp_path / "signals" / "pictures" / "000300").iterdir())) == 6


def test_a_killed_run_goes_on_from_its_checkpoint(base, tmp_path):
    straight = measure(tmp_path / "straight", base, range(0, 400, 100), obeys_from=200)
    run = tmp_path / "killed"
    killed = measure(run, base, range(0, 300, 100), obeys_from=200)
    killed.resume(100)
    assert [record.step for record in probes(run).read()] == [0, 100]
    assert not (run / "signals" / "pictures" / "000200").exists()
    resumed = measure(run, base, range(0, 400, 100), obeys_from=200)
    assert resumed.convergence == straight.convergence
    assert probes(run).read() == probes(tmp_path / "straight").read()


def test_references_are_measured_once(base, tmp_path):
    measure(tmp_path, base, [0], obeys_from=1)

    def never(hints, prompts, seeds):
        raise AssertionError("measured again")

    again = open_run_probe(tmp_path, make_probe(*SIZES), never, base)
    kept = read_references(tmp_path)
    assert kept is not None
    assert again.references == kept.references
    other = open_run_probe(tmp_path, make_probe(64, 64), blind, base)
    assert other.references != kept.references


def test_other_samples_begin_another_curve(base, tmp_path):
    """A run that is resumed with fewer probe samples, or without one that was taken down."""
    measure(tmp_path, base, [0, 100], obeys_from=100)
    fewer = make_probe(64, 64)
    opened = open_run_probe(tmp_path, fewer, blind, base)
    opened.resume(100)
    opened.measure(200, Obedient(fewer), lambda given: given.noise.mean())
    assert [(one.step, len(one.per_sample)) for one in probes(tmp_path).read()] == [(200, 2)]
    assert best_step(tmp_path) == 200
    earlier = tmp_path / "signals" / "earlier" / "001"
    assert (earlier / "probes.jsonl").read_text().count("\n") == 2
    assert (earlier / "pictures" / "000100").is_dir()
    measure(tmp_path, base, [300], obeys_from=0)  # more again: the grid has only its own pictures
    assert [one.step for one in probes(tmp_path).read()] == [300]
    assert (tmp_path / "signals" / "earlier" / "002" / "references.json").is_file()


def test_other_sampling_begins_another_curve(base, tmp_path):
    view = Photographs([64] * 3)
    prepare_run_probe(tmp_path, base, view, SPEC, steps=2)
    before = read_references(tmp_path)
    prepare_run_probe(tmp_path, base, view, SPEC, steps=2)
    assert not (tmp_path / "signals" / "earlier").exists()
    prepare_run_probe(tmp_path, base, view, SPEC, steps=1)
    assert read_references(tmp_path) != before
    assert (tmp_path / "signals" / "earlier" / "001").is_dir()


def test_probes_without_what_they_are_read_by_are_set_aside(base, tmp_path):
    measure(tmp_path, base, [0], obeys_from=1)
    (tmp_path / "signals" / "references.json").unlink()
    measure(tmp_path, base, [100], obeys_from=1)
    assert [one.step for one in probes(tmp_path).read()] == [100]


def test_samples_that_tell_nothing_are_refused_before_training(base, tmp_path):
    probe = make_probe(64, 64)
    with pytest.raises(DataError, match="cannot show adherence"):
        open_run_probe(tmp_path, probe, Obedient(probe), base)


def test_a_real_network_is_probed(base, tmp_path):
    """At step 0 the scores are those of no control, bit for bit, and the gap is nothing."""
    denoiser = Controlled(base.unet, new_controlnet(base, seed=0))
    opened = prepare_run_probe(tmp_path, base, Photographs([64] * 5), SPEC, count=3, steps=2)
    record = opened.measure(
        0, controlled(base, denoiser, steps=2), partial(denoising_loss, base, denoiser)
    )
    assert len(record.per_sample) == 3
    assert record.normalised == 0
    assert record.adherence == opened.references.baseline
    assert record.condition_gap == 0
    assert opened.measure(0, blind, lambda given: given.noise.mean()) == record  # not again


def test_samples_of_several_sizes_have_no_gap(base, tmp_path):
    opened = prepare_run_probe(tmp_path, base, Photographs([64, 128]), SPEC, steps=2)
    record = opened.measure(0, blind, lambda given: given.noise.mean())
    assert record.condition_gap is None
