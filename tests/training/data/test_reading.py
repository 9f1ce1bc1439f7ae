"""What is damaged is passed over; what the storage does not give is asked for again."""

import pytest

from catalog.errors import StorageUnavailable
from tests.training.damaged import DamagedView, SilentView
from training.data import reading
from training.data.examples import Examples
from training.data.loader import IndexBatches, load_batches
from training.errors import DataError, DataUnavailable

STEP = 4


def examples_of(view) -> Examples:
    return Examples(view, "canny", seed=7, prompt_dropout=0.5, multiple=8, step=STEP)


def shown(view, *, batch_size=STEP, processes=1, workers=0, start=0):
    """Return the key that each global sample index shows, and the rows passed over."""
    examples, keys, rows = examples_of(view), {}, set()
    for rank in range(processes):
        indices = IndexBatches(
            start=start, stop=24, batch_size=batch_size, rank=rank, processes=processes
        )
        for batch in load_batches(examples, indices, workers=workers):
            keys |= dict(zip(batch.indices, batch.keys, strict=True))
            rows |= {one.row for one in batch.passed_over}
    return keys, rows


def test_a_damaged_row_shows_the_next_of_its_step():
    view = DamagedView(rows=12, changed=(3,), undecodable=(5,), unequal=(8,))
    examples, whole = examples_of(view), examples_of(DamagedView(rows=12))
    damaged = {3, 5, 8}
    for index in range(24):
        first = index // STEP * STEP
        places = [first + (index + at) % STEP for at in range(STEP)]
        rows = [examples.order.row_of(place) for place in places]
        expected = next(row for row in rows if row not in damaged)
        found = examples[index]
        assert found.key == f"{expected:032x}"
        assert [one.row for one in found.passed_over] == rows[: rows.index(expected)]
        assert (found.caption == "") == (whole[index].caption == "")  # its own index's draw


@pytest.mark.parametrize(
    "division",
    [
        {"batch_size": 2},
        {"batch_size": 1, "processes": 4},
        {"batch_size": 2, "processes": 2, "workers": 2},
        {"workers": 2},
    ],
)
def test_how_a_step_is_divided_changes_nothing(division):
    view = DamagedView(rows=12, changed=(3, 4), undecodable=(5,))
    keys, rows = shown(view)
    assert shown(view, **division) == (keys, rows)
    assert rows == {3, 4, 5}
    later, _ = shown(view, start=8, **division)
    assert later == {index: key for index, key in keys.items() if index >= 8}


def test_a_record_names_key_and_error():
    examples = examples_of(DamagedView(rows=4, unequal=(2,)))
    found = {one for index in range(4) for one in examples[index].passed_over}
    (one,) = found
    assert (one.key, one.row) == (f"{2:032x}", 2)
    assert "image is 64x64 but canny is 64x32" in one.error


def test_where_a_whole_step_is_damaged_the_next_one_stands_in():
    view = DamagedView(rows=12, changed=(1,))
    examples = Examples(view, "canny", seed=7, prompt_dropout=0, multiple=8, step=1)
    rows = [examples.order.row_of(index) for index in range(24)]
    expected = [rows[at + 1] if row == 1 else row for at, row in enumerate(rows[:-1])]
    assert [int(examples[index].key, 16) for index in range(23)] == expected


def test_a_step_without_a_whole_sample_is_an_error():
    view = DamagedView(rows=STEP, changed=(0, 1), undecodable=(2, 3))
    with pytest.raises(DataError, match=r"all 4 are damaged .*restore the shards"):
        examples_of(view)[0]


def test_a_step_longer_than_the_view_reads_no_damaged_row_twice():
    view = DamagedView(rows=2, changed=(0,))
    assert [len(examples_of(view)[index].passed_over) for index in range(4)].count(1) >= 2
    assert {examples_of(view)[index].key for index in range(4)} == {f"{1:032x}"}


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(reading.time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), PermissionError(13, "no"), StorageUnavailable("s3")]
)
def test_what_the_storage_gives_later_is_the_same(pauses, error):
    keys, rows = shown(SilentView(rows=8, times=2, error=error))
    assert (keys, rows) == shown(DamagedView(rows=8))
    assert sorted(pauses) == [1.0] * 8 + [4.0] * 8  # samples of a batch wait side by side


def test_what_the_storage_never_gives_ends_the_run_with_the_file(pauses):
    with pytest.raises(DataUnavailable, match=r"tried 5 times .*/mnt/a\.tar.*last checkpoint"):
        examples_of(SilentView(times=99))[0]
    assert pauses == list(reading.PAUSES)
