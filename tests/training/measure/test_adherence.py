"""The probe on pictures whose obedience is known."""

from dataclasses import replace

import pytest
import torch

from detectors import graph
from tests.training.probing import Obedient, blind, heeding, make_probe
from training.errors import DataError
from training.measure import redetect
from training.measure.adherence import (
    References,
    normalised,
)
from training.measure.condition_gap import GAP_TIMESTEPS, condition_gap, gap_inputs


def test_obedience_scores_one_and_blindness_little():
    probe = make_probe(64, 64, 64, 64)
    obedient = probe.measure(Obedient(probe))
    assert obedient.per_sample == (1.0,) * 4
    assert (obedient.mean, obedient.std) == (1.0, 0.0)
    assert len(obedient.images) == 4
    baseline = probe.measure(blind)
    assert baseline.mean < 0.5
    assert baseline.mean == probe.measure(blind).mean  # the same seeds each time


def test_shuffled_conditions_fall_to_the_baseline():
    probe = make_probe(*[64] * 12)
    shuffled, baseline = probe.measure_shuffled(Obedient(probe)), probe.measure(blind)
    assert shuffled.mean < 0.5
    assert shuffled.mean == pytest.approx(baseline.mean, abs=3 * baseline.std / 12**0.5)


def test_shuffling_changes_the_condition_alone():
    probe = make_probe(64, 64, 64)
    straight, shuffled = Obedient(probe), Obedient(probe)
    probe.measure(straight)
    probe.measure_shuffled(shuffled)
    assert (
        straight.calls
        == shuffled.calls
        == [(3, ("picture 0", "picture 1", "picture 2"), (7, 8, 9))]
    )


def test_sizes_are_kept_apart_and_the_order_kept():
    probe = make_probe(64, 32, 64, 32, 64)
    obedient = Obedient(probe)
    assert probe.measure(obedient, batch_size=2).per_sample == (1.0,) * 5
    assert [seeds for _, _, seeds in obedient.calls] == [(7, 9), (11,), (8, 10)]
    assert max(probe.measure_shuffled(obedient).per_sample) < 1


def test_what_a_probe_cannot_do_is_said():
    with pytest.raises(DataError, match="at least 1 held-out sample"):
        make_probe()
    probe = make_probe(64, 64, 32)
    with pytest.raises(DataError, match="the only one of its size"):
        probe.measure_shuffled(Obedient(probe))


@pytest.mark.parametrize(
    ("score", "baseline", "ceiling", "expected"),
    [(0.2, 0.2, 0.9, 0), (0.9, 0.2, 0.9, 1), (0.55, 0.2, 0.9, 0.5), (30, 40, 20, 0.5)],
)
def test_the_normalised_scale(score, baseline, ceiling, expected):
    assert normalised(score, baseline, ceiling) == pytest.approx(expected)
    references = References(baseline=baseline, real=ceiling, reconstruction=ceiling)
    assert references.normalised(score) == normalised(score, baseline, ceiling)


def test_a_scale_without_length_is_refused():
    with pytest.raises(DataError, match="cannot show adherence"):
        normalised(0.5, 0.5, 0.5)


def test_references_of_a_random_base(base):
    probe = make_probe(64, 64)
    references, uncontrolled = probe.references(blind, base)
    assert references.real == 1.0
    assert references.baseline == uncontrolled.mean == probe.measure(blind).mean
    assert 0 <= references.reconstruction < 1


def test_the_gap_is_what_the_condition_is_worth(base):
    samples = make_probe(64, 64, 64).samples
    inputs = gap_inputs(base, samples, seed=0)
    assert len(inputs.latents) == 3 * len(GAP_TIMESTEPS)
    assert inputs.timesteps.tolist() == [300] * 3 + [600] * 3 + [900] * 3
    again = gap_inputs(base, samples, seed=0)
    assert torch.equal(inputs.noise, again.noise)
    assert torch.equal(inputs.latents, again.latents)
    assert not torch.equal(inputs.noise, gap_inputs(base, samples, seed=1).noise)

    assert condition_gap(lambda given: given.noise.square().mean(), inputs) == 0
    gap = condition_gap(heeding(inputs), inputs)
    assert gap > 0
    rows = inputs.hint.flatten(1)
    assert all(
        not torch.equal(one, other) for one, other in zip(rows, rows.roll(1, 0), strict=True)
    )
    worse = replace(inputs, hint=inputs.hint * 0)
    assert condition_gap(heeding(worse), worse) == 0  # no condition, nothing to shuffle


def test_the_gap_is_the_same_in_any_batches(base):
    """One forward of all rows is more memory than a training leaves."""
    inputs = gap_inputs(base, make_probe(64, 64, 64).samples, seed=0)
    loss, rows = heeding(inputs), []

    def counted(given):
        rows.append(len(given.hint))
        return loss(given)

    whole = condition_gap(loss, inputs, batch_size=9)
    assert condition_gap(counted, inputs, batch_size=2) == pytest.approx(whole, rel=1e-5)
    assert rows == [2, 2, 2, 2, 1] * 2


class Full:
    """Makes pictures until memory is out, at more than two at once."""

    def __init__(self, probe) -> None:
        self.obedient = Obedient(probe)

    def __call__(self, hints, prompts, seeds):
        if len(hints) > 2:
            raise torch.OutOfMemoryError("full")
        return self.obedient(hints, prompts, seeds)


def test_memory_that_does_not_suffice_halves_the_batch(base, caplog):
    probe = make_probe(64, 64, 64, 64, 64)
    full = Full(probe)
    assert probe.measure(full, batch_size=5).per_sample == (1.0,) * 5
    assert [seeds for _, _, seeds in full.obedient.calls] == [(7, 8), (9, 10), (11,)]
    assert "batches of a probe now have 2" in caplog.text
    inputs = gap_inputs(base, probe.samples, seed=0)

    def crowded(given):
        if len(given.hint) > 3:
            raise torch.OutOfMemoryError("full")
        return heeding(inputs)(given)

    gap = condition_gap(crowded, inputs)
    assert gap == pytest.approx(condition_gap(heeding(inputs), inputs), rel=1e-5)

    def never(*_):
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        probe.measure(never)


def test_one_picture_that_the_detector_fails_on_scores_worst(monkeypatch, caplog):
    probe = make_probe(64, 64, 64)
    unreadable = {probe.samples[1].image.tobytes()}

    def annotate(spec, picture, *rest):
        if picture.tobytes() in unreadable:
            raise ZeroDivisionError("no edges")
        return graph.annotate(spec, picture, *rest)

    monkeypatch.setattr(redetect, "annotate", annotate)
    assert probe.measure(Obedient(probe)).per_sample == (1.0, 0.0, 1.0)
    assert "the detector failed on a picture, which scores worst: no edges" in caplog.text
    with pytest.raises(ZeroDivisionError):  # a photograph is what scores stand beside
        probe.measure_images([sample.image for sample in probe.samples])
    unreadable |= {sample.image.tobytes() for sample in probe.samples}
    with pytest.raises(ZeroDivisionError):
        probe.measure(Obedient(probe))


@pytest.mark.parametrize("sizes", [(64,), (64, 32)])
def test_the_gap_needs_two_samples_of_one_size(base, sizes):
    with pytest.raises(DataError, match="2 or more held-out samples, all of one size"):
        gap_inputs(base, make_probe(*sizes).samples, seed=0)
