import pytest
from pydantic import ValidationError

from training.settings.phases import Phase, check_phases, is_over, last_step

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
    assert last_step(MID, begun=0, steps=500) == 100
    assert last_step(MID, begun=0, steps=50) == 50
    assert last_step(UNLOCKED, begun=200, steps=500) == 500
    assert last_step(Phase(trains="mid_only", until="converged"), begun=0, steps=500) == 500
    assert last_step(FULL, begun=300, steps=500) == 300, "convergence came after its end"


def test_a_phase_is_over_at_its_step_or_by_convergence():
    assert not is_over(MID, 99, converged=True)
    assert is_over(MID, 100, converged=False)
    assert not is_over(UNLOCKED, 10**6, converged=True)
    by_itself = Phase(trains="mid_only", until="converged")
    assert not is_over(by_itself, 10**6, converged=False)
    assert is_over(by_itself, 7, converged=True)
