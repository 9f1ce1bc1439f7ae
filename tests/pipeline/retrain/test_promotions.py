"""The log of what is current: nothing is lost, nothing is promoted twice or over something else."""

import json
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from catalog import storage
from pipeline.errors import LeaseLost, PromotionError, UsageError
from pipeline.retrain.lease import Lease, hold
from pipeline.retrain.promotions import (
    Candidate,
    Promotion,
    copy_current,
    current,
    history,
    promote,
    roll_back,
)


def candidate(night: str, **changed: object) -> Candidate:
    made = Candidate(
        night=night,
        dataset="s3://bucket/dataset",
        generation=2,
        manifest_sha="a" * 64,
        run=f"runs/{night}",
        figures={"adherence": (0.75, 0.5)},  # a list where it is read
    )
    return replace(made, **changed)


def as_json(record: Promotion) -> dict[str, Any]:
    return json.loads(json.dumps(asdict(record)))


def shown(folder: str) -> int:
    return int(json.loads(storage.read_bytes(f"{folder}/CURRENT.json"))["number"])


def test_the_newest_promotion_is_current_and_all_are_kept(folder: str) -> None:
    assert current(folder) is None
    assert history(folder) == []
    with hold(folder, "nightly") as lease:
        first = promote(folder, candidate("monday"), lease, expected=0)
        second = promote(folder, candidate("tuesday", run=None), lease, expected=1)
    assert [asdict(one) for one in history(folder)] == [as_json(first), as_json(second)]
    assert current(folder) == history(folder)[-1]
    assert (second.number, second.night, second.run, second.lease) == (2, "tuesday", None, 1)
    assert first.why == "promoted"
    assert shown(folder) == 2


def test_what_was_compared_with_an_older_one_is_refused(folder: str) -> None:
    with hold(folder, "nightly") as lease:
        promote(folder, candidate("monday"), lease, expected=0)
        with pytest.raises(PromotionError, match=r"promotion 0 .* but 1, of night monday"):
            promote(folder, candidate("tuesday"), lease, expected=0)
        with pytest.raises(PromotionError, match=r"promotion 7 .* but 1, of night monday"):
            promote(folder, candidate("tuesday"), lease, expected=7)
    assert [one.night for one in history(folder)] == ["monday"]


def test_who_lost_the_lease_promotes_nothing(folder: str) -> None:
    with hold(folder, "slow", lapses_after=0) as slow, hold(folder, "quick") as quick:
        with pytest.raises(LeaseLost):
            promote(folder, candidate("slow"), slow, expected=0)
        promote(folder, candidate("quick"), quick, expected=0)
        with pytest.raises(LeaseLost):
            promote(folder, candidate("slow"), slow, expected=1)
    assert [one.night for one in history(folder)] == ["quick"]


def test_a_lease_lost_after_the_check_still_overwrites_nothing(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are past their checks: the one whose record came first is promoted, alone."""
    monkeypatch.setattr(Lease, "check", lambda lease: None)
    gate, refused = threading.Barrier(6), []

    def try_it(number: int) -> None:
        gate.wait()
        try:
            lease = Lease(folder=folder, number=number)
            promote(folder, candidate(f"night-{number}"), lease, expected=0)
        except PromotionError:
            refused.append(number)

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (promoted,) = history(folder)
    assert len(refused) == 5
    assert promoted.lease not in refused


def test_a_night_that_was_killed_after_its_promotion_promotes_once(folder: str) -> None:
    with hold(folder, "nightly") as lease:
        first = promote(folder, candidate("monday"), lease, expected=0)
    storage.remove(f"{folder}/CURRENT.json")
    with hold(folder, "nightly") as lease:
        assert promote(folder, candidate("monday"), lease, expected=0) == history(folder)[0]
        assert shown(folder) == 1
        with pytest.raises(PromotionError):
            promote(folder, candidate("monday", manifest_sha="b" * 64), lease, expected=0)
    assert [as_json(one) for one in history(folder)] == [as_json(first)]


def test_a_night_whose_promotion_was_followed_does_not_promote_again(folder: str) -> None:
    with hold(folder, "nightly") as lease:
        promote(folder, candidate("monday"), lease, expected=0)
        promote(folder, candidate("tuesday"), lease, expected=1)
        assert promote(folder, candidate("monday"), lease, expected=0) == history(folder)[0]
    assert len(history(folder)) == 2
    assert shown(folder) == 2


def test_a_record_of_another_version_is_named(tmp_path: Path) -> None:
    with hold(str(tmp_path), "nightly") as lease:
        promote(str(tmp_path), candidate("monday"), lease, expected=0)
    path = tmp_path / "promotions" / "000001.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "blue"}))
    with pytest.raises(PromotionError, match=r"000001\.json is a record of another .*colour"):
        current(str(tmp_path))


def test_a_rollback_is_a_new_record_with_the_old_content(folder: str) -> None:
    with hold(folder, "nightly") as lease:
        first = promote(folder, candidate("monday"), lease, expected=0)
        promote(folder, candidate("tuesday"), lease, expected=1)
    with hold(folder, "a person") as lease:
        back = roll_back(folder, 1, lease)
    assert (back.number, back.why, back.lease) == (3, "rolled back to 1", 2)
    assert as_json(back)["figures"] == as_json(first)["figures"]
    assert (back.night, back.run) == (first.night, first.run)
    assert current(folder).number == 3
    assert shown(folder) == 3
    with hold(folder, "nightly") as lease:  # the same content as monday's is promoted anew
        assert promote(folder, candidate("monday"), lease, expected=3).number == 4


@pytest.mark.parametrize("to", [0, 2, 3])
def test_only_to_an_earlier_promotion_is_rolled_back(folder: str, to: int) -> None:
    with hold(folder, "nightly") as lease:
        promote(folder, candidate("monday"), lease, expected=0)
        promote(folder, candidate("tuesday"), lease, expected=1)
        with pytest.raises(UsageError, match=rf"cannot roll back to {to}; .* are: 1$"):
            roll_back(folder, to, lease)
    assert len(history(folder)) == 2


def test_an_old_copy_is_mended(folder: str) -> None:
    copy_current(folder)
    assert not storage.exists(f"{folder}/CURRENT.json")
    with hold(folder, "nightly") as lease:
        promote(folder, candidate("monday"), lease, expected=0)
    storage.write_atomic(f"{folder}/CURRENT.json", b"old")
    copy_current(folder)
    assert shown(folder) == 1
