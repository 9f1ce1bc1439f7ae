"""What is held out is drawn by hash, kept out by key, and found again in a dataset that changed."""

import pickle

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.dataset.dataset import View
from training.data.examples import Examples
from training.data.held_out import (
    choose_held_out,
    held_out_view,
    read_held_out,
    write_held_out,
)
from training.errors import DataError

KEYS = [f"{number:032x}" for number in range(400)]


def keys(view) -> list[str]:
    return [view.read(row).key for row in range(len(view))]


@settings(max_examples=30)
@given(data=st.data(), rows=st.integers(2, 6))
def test_the_parts_are_disjoint_and_make_up_the_view(view_type, data, rows):
    view = view_type(rows=rows)
    chosen = choose_held_out(view.keys(), data.draw(st.integers(0, rows - 1)))
    training, held_out = held_out_view(view, view, chosen)
    assert keys(held_out) == list(chosen) == list(held_out.keys())
    assert keys(training) == [key for key in keys(view) if key not in chosen]
    assert keys(training) == list(training.keys())
    assert training.conditions == view.conditions


def test_hashes_choose_whatever_the_order_and_from_everywhere():
    chosen = choose_held_out(KEYS, 40)
    assert choose_held_out(KEYS[::-1], 40) == chosen
    assert choose_held_out(KEYS, 20) == chosen[:20]
    places = [KEYS.index(key) for key in chosen]
    assert sum(place < 200 for place in places) in range(10, 31)  # not the last, not the first


@pytest.mark.parametrize(("rows", "count"), [(5, 0), (9, 0), (10, 1), (155, 15), (400, 16)])
def test_by_default_a_tenth_and_at_most_16(rows, count):
    assert len(choose_held_out(KEYS[:rows], None)) == count


def test_a_dataset_that_grew_or_shrank_keeps_what_was_held_out(view_type):
    chosen = choose_held_out(view_type(rows=8).keys(), 3)
    grown = view_type(rows=20)
    split = held_out_view(grown, grown, chosen)
    assert keys(split.held_out) == list(chosen)
    assert not set(chosen) & set(keys(split.training))
    shrunk = view_type(rows=int(max(chosen), 16))
    left = held_out_view(shrunk, shrunk, chosen).held_out
    assert keys(left) == [key for key in chosen if key != max(chosen)]


def test_a_subset_trains_without_them_and_they_come_from_the_whole(view_type):
    whole, subset = view_type(rows=9), view_type(rows=4)
    chosen = choose_held_out(whole.keys(), 4)
    training, held_out = held_out_view(whole, subset, chosen)
    assert keys(held_out) == list(chosen)
    assert keys(training) == [key for key in keys(subset) if key not in chosen]


def test_nothing_held_out_leaves_the_view_itself(view_type):
    view = view_type(rows=4)
    training, held_out = held_out_view(view, view, ())
    assert training is view
    assert len(held_out) == 0


def test_something_must_be_left_to_train_on(view_type):
    with pytest.raises(DataError, match="cannot hold 5 samples out of 5"):
        choose_held_out(view_type(rows=5).keys(), 5)
    one = view_type(rows=1)
    with pytest.raises(DataError, match="no rows but the 1 held-out ones"):
        held_out_view(view_type(rows=5), one, one.keys())


def test_other_choices_have_other_fingerprints(view_type):
    view = view_type(rows=9)
    splits = [held_out_view(view, view, choose_held_out(view.keys(), n)) for n in (2, 3)]
    other = view_type(rows=9, fingerprint="beef")
    splits.append(held_out_view(other, other, choose_held_out(other.keys(), 3)))
    assert len({split.training.fingerprint for split in splits}) == 3


def test_rows_outside_are_an_error(view_type):
    view = view_type(rows=5)
    training, held_out = held_out_view(view, view, choose_held_out(view.keys(), 2))
    for part, row in ((training, 3), (held_out, 2), (held_out, -1)):
        with pytest.raises(IndexError, match="row"):
            part.read(row)


def test_training_reads_none_of_them_in_any_worker(view_type):
    view = view_type(rows=5)
    training, held_out = held_out_view(view, view, choose_held_out(view.keys(), 2))
    training = pickle.loads(pickle.dumps(training))
    examples = Examples(training, "canny", seed=0, prompt_dropout=0, multiple=8)
    read = {examples[index].key for index in range(12)}
    assert read == set(keys(training))
    assert not read & set(keys(held_out))


def test_parts_of_a_dataset_are_views_of_it():
    table = pa.table({"key": KEYS[:6], "block_sha256": [f"{at:064x}" for at in range(6)]})
    view = View("file:///d", "1k", table)
    training, held_out = held_out_view(view, view, choose_held_out(view.keys(), 2))
    assert isinstance(training, View)
    assert isinstance(held_out, View)
    assert sorted(training.keys() + held_out.keys()) == KEYS[:6]


def test_a_run_keeps_its_keys(tmp_path):
    assert read_held_out(tmp_path) == ()
    write_held_out(tmp_path, KEYS[:3])
    assert read_held_out(tmp_path) == tuple(KEYS[:3])
