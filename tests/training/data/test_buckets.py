"""Of rows of several sizes: each group has one, and the order is one for every division of it."""

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.buckets import Buckets, order_of
from training.data.examples import Examples
from training.data.held_out import held_out_view
from training.data.loader import Batch, IndexBatches, load_batches
from training.data.order import Shuffled, row_of
from training.errors import DataError

SIZES = ((64, 64), (64, 128), (128, 64), (192, 64))
SEED = 7


@st.composite
def buckets(draw) -> tuple[Buckets, np.ndarray, int]:
    group = draw(st.integers(2, 5))
    counts = [draw(st.integers(group, 23))]  # at least one size fills a group
    counts += draw(st.lists(st.integers(1, 23), max_size=3))
    sizes = np.repeat(SIZES[: len(counts)], counts, axis=0)
    sizes = np.random.default_rng(draw(st.integers(0, 99))).permutation(sizes)
    return Buckets(sizes, seed=draw(st.integers(0, 2**40)), group=group), sizes, group


def rows_of_epoch(order: Buckets, epoch: int) -> list[int]:
    starts = order.epoch_start(epoch), order.epoch_start(epoch + 1)
    return [order.row_of(index) for index in range(*starts)]


@given(made=buckets(), epoch=st.integers(0, 10**6))
def test_an_epoch_visits_no_row_twice(made, epoch):
    order, _, _ = made
    rows = rows_of_epoch(order, epoch)
    assert rows
    assert len(set(rows)) == len(rows)


@given(made=buckets(), first=st.integers(0, 10**6))
def test_a_group_has_one_size(made, first):
    order, sizes, group = made
    for number in range(first, first + 12):
        indices = range(number * group, (number + 1) * group)
        assert len({tuple(sizes[order.row_of(index)]) for index in indices}) == 1


@given(made=buckets(), epochs=st.integers(1, 12))
def test_rows_are_visited_equally_often(made, epochs):
    order, sizes, group = made
    visits = Counter(order.row_of(index) for index in range(order.epoch_start(epochs)))
    rows_of = Counter(map(tuple, sizes.tolist()))
    for size, count in rows_of.items():
        rows = np.flatnonzero((sizes == size).all(axis=1))
        seen = [visits[row] for row in rows.tolist()]
        if count < group:
            assert not any(seen)
            continue
        assert max(seen) - min(seen) <= 1
        assert min(seen) - epochs * order.pace > -2
        assert max(seen) - epochs * order.pace < 1
    left_out = sum(count for count in rows_of.values() if count < group)
    assert order.left_out == left_out
    assert 1 / 2 < order.pace <= 1


@given(made=buckets(), indices=st.lists(st.integers(0, 10**5), min_size=1, max_size=20))
def test_the_order_does_not_depend_on_what_was_asked_before(made, indices):
    order, sizes, group = made
    again = Buckets(sizes, seed=order._seed, group=group)
    travelled = pickle.loads(pickle.dumps(order))
    wanted = [order.row_of(index) for index in indices]
    assert [again.row_of(index) for index in reversed(indices)] == wanted[::-1]
    assert [travelled.row_of(index) for index in indices] == wanted


@given(rows=st.integers(1, 40), group=st.integers(1, 9), start=st.integers(0, 500))
def test_rows_of_one_size_keep_their_order(rows, group, start):
    order = order_of(rows, np.full((rows, 2), 64), seed=SEED, group=group)
    indices = range(start, start + 50)
    assert [order.row_of(index) for index in indices] == [
        row_of(SEED, index, rows) for index in indices
    ]
    assert order.left_out == 0


@pytest.mark.parametrize(("sizes", "group"), [(None, 4), (SIZES, None), (SIZES, 1)])
def test_unknown_sizes_and_groups_of_one_need_no_buckets(sizes, group):
    order = order_of(4, None if sizes is None else np.array(sizes), seed=SEED, group=group)
    assert isinstance(order, Shuffled)


def test_epochs_and_seeds_have_their_own_orders():
    sizes = np.repeat(SIZES[:2], 20, axis=0)
    orders = [Buckets(sizes, seed=seed, group=4) for seed in range(3)]
    assert len({tuple(rows_of_epoch(order, epoch)) for order in orders for epoch in range(3)}) == 9


def test_no_size_that_fills_a_group_is_refused():
    sizes = np.repeat(SIZES[:2], (3, 5), axis=0)
    with pytest.raises(DataError, match=r"step of 6 .* 2 sizes the commonest, 128x64, has 5"):
        Buckets(sizes, seed=0, group=6)


GROUP = 4


def examples_of(view) -> Examples:
    return Examples(view, "canny", seed=SEED, prompt_dropout=0.5, multiple=8, group=GROUP)


def read(examples: Examples, *, start: int, batch_size: int, processes: int, workers: int):
    """Return (index, key, caption, size) of each sample, in the order of the indices."""

    def share(rank: int) -> list[Batch]:
        indices = IndexBatches(
            start=start, stop=32, batch_size=batch_size, rank=rank, processes=processes
        )
        return list(load_batches(examples, indices, workers=workers))

    batches = [batch for rank in range(processes) for batch in share(rank)]
    found = [
        (index, key, caption, batch.images.shape[1:])
        for batch in batches
        for index, key, caption in zip(batch.indices, batch.keys, batch.captions, strict=True)
    ]
    return sorted(found)


@pytest.fixture
def mixed(view_type):
    return view_type(rows=23, sizes=SIZES[:3])


@settings(max_examples=15)
@given(
    data=st.data(),
    start=st.integers(0, 7).map(lambda step: step * GROUP),
    division=st.sampled_from([(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (1, 4)]),
)
def test_every_division_of_a_step_reads_the_same(view_type, data, start, division):
    view = view_type(rows=23, sizes=SIZES[: data.draw(st.integers(1, 3))])
    batch_size, processes = division
    whole = read(examples_of(view), start=0, batch_size=GROUP, processes=1, workers=0)
    part = read(
        examples_of(view), start=start, batch_size=batch_size, processes=processes, workers=0
    )
    assert part == whole[start:]
    assert [index for index, *_ in whole] == list(range(32))


def test_workers_change_nothing(mixed):
    one, two = (
        read(examples_of(mixed), start=4, batch_size=2, processes=2, workers=workers)
        for workers in (0, 2)
    )
    assert one == two


def test_a_view_that_tells_no_sizes_mixes_them(view_type):
    examples = examples_of(view_type(rows=23, sizes=SIZES[:3], tells_sizes=False))
    with pytest.raises(DataError, match="a batch mixes the sizes"):
        read(examples, start=0, batch_size=GROUP, processes=1, workers=0)


def test_a_part_of_a_view_tells_the_sizes_of_its_rows(mixed, view_type):
    training, held_out = held_out_view(mixed, mixed, mixed.keys()[-5:])
    np.testing.assert_array_equal(training.row_sizes(), mixed.row_sizes()[:-5])
    kept = held_out.keys()
    places = [mixed.keys().index(key) for key in kept]
    np.testing.assert_array_equal(held_out.row_sizes(), mixed.row_sizes()[places])
    view = view_type(rows=5, tells_sizes=False)
    untold = held_out_view(view, view, view.keys()[-2:])
    assert untold.training.row_sizes() is untold.held_out.row_sizes() is None
