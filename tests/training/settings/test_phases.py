import pytest
from pydantic import ValidationError

from training.settings.phases import Phase, advance, check_phases, last_step

MID = Phase(trains="mid_only", until=100)
FULL = Phase(trains="full", until=200)
UNLOCKED = Phase(trains="unlocked")


@pytest.mark.parametrize(
    "phases",
    [
        (Phase(trains="full"),),
        (MID, Phase(trains="full")),
        (MID, FULL, UNLOCKED),
        (Phase(trains="mid_only", until="converged"), FULL, UNLOCKED),
    ],
)
def test_phases_that_follow_each_other(phases):
    check_phases(phases)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ((), "phases is empty"),
        ((FULL, Phase(trains="mid_only")), "in the order mid_only, full, unlocked"),
        ((FULL, Phase(trains="full")), "each at most once"),
        ((FULL,), "the last phase has no until"),
        ((Phase(trains="full"), UNLOCKED), "every phase but the last needs until"),
        ((Phase(trains="mid_only", until=200), FULL, UNLOCKED), "must end after the one before"),
    ],
)
def test_phases_that_do_not(phases, message):
    with pytest.raises(ValueError, match=message):
        check_phases(phases)


def test_an_end_is_a_step():
    with pytest.raises(ValidationError, match="until must be a step from 1, got 0"):
        Phase(trains="full", until=0)
    with pytest.raises(ValidationError):
        Phase(trains="full", until="soon")


def test_only_an_unlocked_phase_has_a_rate_of_its_own():
    assert Phase(trains="full").rate(1e-5) == 1e-5
    assert Phase(trains="unlocked").rate(1e-5) == 2e-6
    assert Phase(trains="unlocked", learning_rate=1e-6).rate(1e-5) == 1e-6


def test_a_phase_lasts_to_its_end_or_the_runs():
    assert last_step(MID, steps=500) == 100
    assert last_step(MID, steps=50) == 50
    assert last_step(UNLOCKED, steps=500) == 500
    assert last_step(Phase(trains="mid_only", until="converged"), steps=500) == 500


BY_ITSELF = Phase(trains="mid_only", until="converged")


@pytest.mark.parametrize(
    ("phases", "index", "step", "converged", "following"),
    [
        ((MID, FULL, UNLOCKED), 0, 99, True, 0),
        ((MID, FULL, UNLOCKED), 0, 100, False, 1),
        ((MID, FULL, UNLOCKED), 0, 250, False, 2),
        ((MID, FULL, UNLOCKED), 2, 10**6, True, 2),
        ((BY_ITSELF, FULL, UNLOCKED), 0, 10**6, False, 0),
        ((BY_ITSELF, FULL, UNLOCKED), 0, 7, True, 1),
        ((BY_ITSELF, FULL, UNLOCKED), 0, 300, True, 2),  # it came after the next one's end
        ((BY_ITSELF, Phase(trains="full", until="converged"), UNLOCKED), 0, 7, True, 1),
    ],
)
def test_phases_that_are_over_are_skipped(phases, index, step, converged, following):
    assert advance(phases, index, step, converged=converged) == following
