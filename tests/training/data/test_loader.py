import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from catalog.images import decode_image
from training.data.examples import Examples, drops_prompt
from training.data.loader import Batch, IndexBatches, collate, load_batches
from training.data.order import epoch_order, row_of
from training.data.pixels import as_signed, as_unit
from training.errors import DataError

seeds = st.integers(0, 2**40)


def examples_of(view, *, seed=7, prompt_dropout=0.5, multiple=8, condition="canny") -> Examples:
    return Examples(view, condition, seed=seed, prompt_dropout=prompt_dropout, multiple=multiple)


@given(seed=seeds, epoch=st.integers(0, 50), rows=st.integers(1, 200))
def test_each_epoch_visits_every_row_once(seed, epoch, rows):
    visited = [row_of(seed, epoch * rows + index, rows) for index in range(rows)]
    assert sorted(visited) == list(range(rows))


def test_epochs_and_seeds_have_their_own_orders():
    orders = {tuple(epoch_order(seed, epoch, 20)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_the_order_does_not_depend_on_what_was_asked_before():
    late = row_of(3, 1234, 17)
    epoch_order.cache_clear()
    for index in range(40):
        row_of(3, index, 17)
    assert row_of(3, 1234, 17) == late


def test_the_cached_order_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        epoch_order(0, 0, 4)[0] = 1


@given(
    start=st.integers(0, 100),
    rounds=st.integers(1, 8),
    batch_size=st.integers(1, 5),
    processes=st.integers(1, 4),
)
def test_processes_share_the_range_without_gap_or_overlap(start, rounds, batch_size, processes):
    stop = start + rounds * batch_size * processes
    shares = [
        list(
            IndexBatches(
                start=start, stop=stop, batch_size=batch_size, rank=rank, processes=processes
            )
        )
        for rank in range(processes)
    ]
    in_order = [index for batches in zip(*shares, strict=True) for one in batches for index in one]
    assert in_order == list(range(start, stop))


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 1.0])
def test_prompts_are_dropped_at_the_rate_asked_for(probability):
    draws = 4000
    dropped = sum(drops_prompt(0, index, probability) for index in range(draws))
    deviation = (probability * (1 - probability) / draws) ** 0.5
    assert abs(dropped / draws - probability) <= 4 * deviation


def test_a_dropped_prompt_depends_on_seed_and_index_alone():
    pattern = [drops_prompt(5, index, 0.5) for index in range(200)]
    assert [drops_prompt(5, index, 0.5) for index in reversed(range(200))] == pattern[::-1]
    assert [drops_prompt(6, index, 0.5) for index in range(200)] != pattern


def load(view, *, start=0, stop=12, workers=0) -> list[Batch]:
    indices = IndexBatches(start=start, stop=stop, batch_size=2)
    return list(load_batches(examples_of(view), indices, workers=workers))


def assert_same(left: list[Batch], right: list[Batch]) -> None:
    assert [batch.indices for batch in left] == [batch.indices for batch in right]
    for one, other in zip(left, right, strict=True):
        assert (one.keys, one.captions) == (other.keys, other.captions)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.hints, other.hints)


def test_workers_change_nothing(view_type):
    assert_same(load(view_type(), workers=0), load(view_type(), workers=2))


def test_a_later_start_reads_what_an_earlier_one_would_have(view_type):
    assert_same(load(view_type())[3:], load(view_type(), start=6))


def test_a_batch_holds_what_the_view_holds(view_type):
    view = view_type(rows=3, sizes=((64, 128),))
    (batch,) = load(view, start=3, stop=5)  # the second epoch
    assert batch.images.shape == batch.hints.shape == (2, 3, 64, 128)
    assert batch.images.dtype == batch.hints.dtype == torch.uint8
    assert batch.images.is_contiguous()
    assert batch.hints.is_contiguous()
    for place, index in enumerate(batch.indices):
        sample = view.read(row_of(7, index, 3))
        image = decode_image(sample.image).transpose(2, 0, 1)
        assert batch.keys[place] == sample.key
        assert batch.captions[place] == ("" if drops_prompt(7, index, 0.5) else sample.caption)
        np.testing.assert_array_equal(batch.images[place], image)
        np.testing.assert_array_equal(batch.hints[place], np.where(image > 127, 255, 0))


def test_levels_become_the_floats_that_the_networks_know():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    as_floats = np.arange(256, dtype=np.float32).reshape(16, 16) / np.float32(255)
    np.testing.assert_array_equal(as_unit(levels)[0, 0], as_floats)
    np.testing.assert_array_equal(as_signed(levels)[0, 2], as_floats * 2 - 1)
    assert as_unit(levels).dtype == as_signed(levels).dtype == torch.float32


def test_an_unknown_condition_names_those_there_are(view_type):
    with pytest.raises(DataError, match=r"no condition 'depth'; it has: canny, hed"):
        examples_of(view_type(conditions=("canny", "hed")), condition="depth")


def test_an_empty_view_is_refused(view_type):
    with pytest.raises(DataError, match="no rows"):
        examples_of(view_type(rows=0))


def test_a_size_that_does_not_fit_the_base_is_refused(view_type):
    with pytest.raises(DataError, match=r"is 64x60; .* multiples of 8"):
        examples_of(view_type(sizes=((60, 64),)))[0]


def test_a_condition_of_another_size_is_refused(view_type):
    with pytest.raises(DataError, match="image is 64x64 but canny is 32x64"):
        examples_of(view_type(hint_size=(64, 32)))[0]


def test_a_batch_of_two_sizes_is_refused(view_type):
    examples = examples_of(view_type(rows=2, sizes=((64, 64), (64, 128))))
    with pytest.raises(DataError, match="mixes the sizes 128x64, 64x64"):
        collate([examples[0], examples[1]])
