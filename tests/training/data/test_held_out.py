"""What is held out is never trained on, and the split is a function of the view alone."""

import pickle

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.dataset.dataset import View
from training.data.held_out import held_out_view
from training.data.loader import Examples
from training.errors import DataError


def keys(view) -> list[str]:
    return [view.read(row).key for row in range(len(view))]


@settings(max_examples=30)
@given(data=st.data(), rows=st.integers(1, 6))
def test_the_parts_are_disjoint_and_make_up_the_view(view_type, data, rows):
    view = view_type(rows=rows)
    count = data.draw(st.integers(0, rows - 1))
    training, held_out = held_out_view(view, count)
    assert (len(training), len(held_out)) == (rows - count, count)
    assert keys(training) + keys(held_out) == keys(view)
    assert not set(keys(training)) & set(keys(held_out))
    assert {training.conditions, held_out.conditions} == {view.conditions}


def test_the_split_is_a_function_of_the_view(view_type):
    one, again = (held_out_view(view_type(rows=9), 3) for _ in range(2))
    assert one.training.fingerprint == again.training.fingerprint
    assert one.held_out.fingerprint == again.held_out.fingerprint
    assert (one.training.name, one.held_out.name) == ("all[0:6]", "all[6:9]")
    others = [
        held_out_view(view_type(rows=9), 2),
        held_out_view(view_type(rows=9, fingerprint="beef"), 3),
    ]
    prints = {split.training.fingerprint for split in (one, *others)}
    assert len(prints | {split.held_out.fingerprint for split in (one, *others)}) == 6


def test_nothing_held_out_leaves_the_view_itself(view_type):
    view = view_type()
    training, held_out = held_out_view(view, 0)
    assert training is view
    assert len(held_out) == 0


@pytest.mark.parametrize("count", [5, 6, -1])
def test_something_must_be_left(view_type, count):
    with pytest.raises(DataError, match="which has 5: at least 1 must be left"):
        held_out_view(view_type(rows=5), count)


def test_rows_beyond_the_part_are_not_read(view_type):
    training, held_out = held_out_view(view_type(rows=5), 2)
    for view, row in ((training, 3), (held_out, 2), (held_out, -1)):
        with pytest.raises(IndexError):
            view.read(row)


def test_a_part_trains_like_a_view(view_type):
    training, held_out = held_out_view(view_type(rows=5), 2)
    examples = Examples(
        pickle.loads(pickle.dumps(training)), "canny", seed=0, prompt_dropout=0, multiple=8
    )
    read = {examples[index].key for index in range(12)}
    assert read == set(keys(training))
    assert not read & set(keys(held_out))


def test_parts_of_a_dataset_are_views_of_it(tmp_path):
    hashes = [f"{row:064x}" for row in range(6)]
    table = pa.table({"key": [one[-32:] for one in hashes], "block_sha256": hashes})
    view = View(str(tmp_path), "1k", table)
    training, held_out = held_out_view(view, 2)
    assert isinstance(training, View)
    assert isinstance(held_out, View)
    assert training.table["key"].to_pylist() + held_out.table["key"].to_pylist() == [
        one[-32:] for one in hashes
    ]
    assert (training.name, held_out.name) == ("1k[0:4]", "1k[4:6]")
    assert training.fingerprint == View(str(tmp_path), "other", table.slice(0, 4)).fingerprint
