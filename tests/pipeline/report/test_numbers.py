"""What a report counts is what a plain loop over the rows counts."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog import tables
from catalog.dataset.dataset import Dataset
from catalog.errors import DatasetError
from catalog.sample import canonical_json
from pipeline.build.build import BuildResult
from pipeline.report.figures import histogram, short
from pipeline.report.histogram import Histogram, Mark, count
from pipeline.report.numbers import (
    NEAR_DUPLICATE,
    count_conditions,
    count_reasons,
    gather,
    group_near_duplicates,
)
from pipeline.report.parameters import read_parameters
from pipeline.report.words import count_captions

numbers_ = st.floats(-1e9, 1e9) | st.integers(-1000, 1000) | st.just(math.nan) | st.none()


@given(st.lists(numbers_, max_size=60), st.booleans(), st.sampled_from([None, 5, 20]))
def test_a_histogram_counts_every_finite_value_once(
    values: list[float | None], log: bool, bins: int | None
) -> None:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    counted = count(pa.chunked_array([pa.array(values, pa.float64())]), log=log, bins=bins)
    if not finite:
        assert counted is None
        return
    assert counted is not None
    assert counted.total == len(finite)
    assert len(counted.edges) == len(counted.counts) + 1
    assert list(counted.edges) == sorted(set(counted.edges))
    assert counted.edges[0] <= min(finite)
    assert counted.edges[-1] >= max(finite) - 1e-12 * abs(max(finite))
    assert "<rect" in histogram(counted, title="any")


def test_whole_numbers_get_bins_of_equal_whole_width() -> None:
    counted = count(np.repeat(np.arange(1, 101), 3), bins=20)
    assert counted is not None
    assert set(counted.counts) == {15}
    assert set(np.diff(counted.edges)) == {5.0}


def test_marks_widen_the_span_and_are_escaped() -> None:
    counted = count(np.array([2.0, 3.5]), marks=(Mark(at=9.0, label="<b>1k</b>"),))
    assert counted is not None
    assert counted.edges[-1] == 9
    drawn = histogram(counted, title='"><script>')
    assert "&lt;b&gt;1k&lt;/b&gt;" in drawn
    assert "<script" not in drawn


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.12345, "0.123"), (1234.0, "1,234"), (12_345, "12.3k"), (3_100_000, "3.1M")],
)
def test_numbers_are_written_short(value: float, text: str) -> None:
    assert short(value) == text


def test_parameters_are_read_as_columns() -> None:
    rows = [
        {"canny": {"low": 60, "high": 200}, "pose": {"fractions": [0.5, 1], "people": [{"x": 1}]}},
        {"canny": {"low": 61.5, "nms": True, "word": "open"}, "pose": {"fractions": []}},
        {},
    ]
    texts = [canonical_json(row).decode() for row in rows]
    read = read_parameters(pa.chunked_array([texts[:1], [*texts[1:], None]]))
    assert read["canny"].to_pylist() == [
        {"high": 200, "low": 60, "nms": None, "word": None},
        {"high": None, "low": 61.5, "nms": True, "word": "open"},
        {"high": None, "low": None, "nms": None, "word": None},
        {"high": None, "low": None, "nms": None, "word": None},
    ]
    assert read["pose"]["fractions"].to_pylist() == [[0.5, 1], [], None, None]


def test_parameters_of_many_rows_keep_their_order() -> None:
    texts = [json.dumps({"canny": {"low": number}}) for number in range(70_000)]
    read = read_parameters(pa.chunked_array([texts]))
    assert read["canny"]["low"].to_numpy().tolist() == list(range(70_000))


@pytest.mark.parametrize("text", ["{", '{"canny": {"low": "word"}}'])
def test_damaged_parameters_are_said_to_be_damaged(text: str) -> None:
    rows = ['{"canny": {"low": 1}}'] * 2000
    rows[1001] = text
    with pytest.raises(DatasetError, match="cannot be read as JSON"):
        read_parameters(pa.chunked_array([rows]))


def test_words_are_those_of_a_plain_count() -> None:
    texts = ["A red Car, a red bus!", "the dog's red nose", "", "  ", "Straße über straße", None]
    counted = count_captions(pa.chunked_array([texts * 3]))
    plain = Counter(
        word
        for text in texts * 3
        for word in re.findall(r"[\w'-]+", (text or "").lower())
        if word not in ("a", "the")
    )
    assert dict(counted.words) == dict(plain)
    assert counted.words[0] == ("red", 9)
    assert (counted.total, counted.empty, counted.distinct) == (18, 9, 3)
    assert counted.repeated == [(text, 3) for text in sorted(t for t in texts if (t or "").strip())]
    assert counted.length is not None
    assert (counted.length.lowest, counted.length.highest) == (3, 6)


def test_reasons_are_counted_with_what_was_measured() -> None:
    rows = [
        {"status": "rejected:min_side", "value": value, "threshold": 64.0} for value in (10, 20, 60)
    ]
    rows += [{"status": "rejected:mixed", "value": 1.0, "threshold": t} for t in (2.0, 3.0)]
    rows += [{"status": "failed:OSError"}]
    first, second, third = count_reasons(pa.Table.from_pylist(rows, schema=tables.REJECTS))
    assert (first.status, first.count, first.threshold) == ("rejected:min_side", 3, 64)
    assert first.measured == (10, 20, 60)
    assert (second.status, second.threshold) == ("rejected:mixed", None)
    assert (third.status, third.measured) == ("failed:OSError", None)


def test_people_are_counted_kept_and_rejected_over_the_same_edges() -> None:
    kept = [{"pose": {"coverage": 0.1, "fractions": fractions}} for fractions in ([0.4, 0.9], [1])]
    parameters = pa.chunked_array([[json.dumps(row) for row in kept]])
    refused = [{"status": "rejected:keypoints", "value": 0.2, "threshold": 0.3}] * 3
    rejects = pa.Table.from_pylist(refused, schema=tables.REJECTS)
    recipe = {"detectors": [{"condition": "pose", "fraction": 0.3}]}
    (pose,) = count_conditions(parameters, rejects, recipe)
    assert pose.people is not None
    assert (pose.people.lowest, pose.people.highest) == (1, 2)
    assert pose.kept_fraction is not None
    assert pose.rejected_fraction is not None
    assert (pose.kept_fraction.lowest, pose.kept_fraction.highest) == (0.9, 1.0)
    assert pose.kept_fraction.edges == pose.rejected_fraction.edges
    assert pose.kept_fraction.marks == (Mark(at=0.3, label="asked for 0.3"),)
    assert pose.kept_fraction.tallest(pose.rejected_fraction) == 3


def test_near_duplicates_are_grouped_by_what_was_kept() -> None:
    kept = ["a" * 64, "b" * 64, "a" * 64]
    rows = [{"status": NEAR_DUPLICATE, "against": sha256} for sha256 in kept]
    rows += [{"status": "rejected:duplicate", "detail": "same bytes as " + "c" * 64}]
    found = group_near_duplicates(pa.Table.from_pylist(rows, schema=tables.REJECTS))
    assert found is not None
    assert (found.images, found.groups) == (3, 2)
    assert found.largest == [("a" * 32, 2), ("b" * 32, 1)]
    assert group_near_duplicates(tables.REJECTS.empty_table()) is None


def test_a_dataset_is_counted_whole(
    pictures: Path, make: Callable[..., BuildResult], tmp_path: Path
) -> None:
    make(pictures, tmp_path / "d")
    dataset = Dataset.open(str(tmp_path / "d"))
    dataset.write_subset(4, policy="top", seed=0)
    dataset.write_subset(5, policy="stratified", seed=1)
    view = dataset.view()
    found = gather(dataset, view.table, dataset.rejects())
    assert found.status.samples == len(view) == _total(found.megapixels)
    assert [(subset.name, subset.samples) for subset in found.subsets] == [
        ("4", 4),
        ("5-stratified-1", 5),
    ]
    table = view.table
    pixels = pc.multiply(table["source_width"], table["source_height"]).to_pylist()
    assert found.subsets[0].megapixels == pytest.approx(pixels[3] / 1e6)
    assert found.subsets[1].megapixels is None
    assert found.megapixels is not None
    assert [mark.label for mark in found.megapixels.marks] == ["4"]
    (canny,) = found.conditions
    assert canny.name == "canny"
    assert set(canny.drawn) == {"low", "high"}
    assert _total(canny.coverage) == len(view)


def _total(histogram: Histogram | None) -> int:
    assert histogram is not None
    return histogram.total
