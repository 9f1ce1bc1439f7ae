"""Plans: limits leave rows, every image has one place, and subsets nest, without a pixel."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog import spill, tables
from catalog.dataset import dataset as layout
from catalog.dataset.dataset import Dataset
from catalog.errors import DatasetError
from catalog.sample import sha256_hex
from catalog.source.ranking import rank, subset_ranks, unit_id
from pipeline.errors import UsageError
from pipeline.plan.freeze import as_begun, claim, freeze
from pipeline.plan.judge import cut_units, judge, summarize
from pipeline.recipe.made_by import recipe_of
from pipeline.recipe.recipe import Recipe, load_recipe
from pipeline.scan.duplicates import mark_duplicates
from pipeline.scan.scan import to_ranked_table


def source(sizes: list[tuple[int, int]], **columns: list[Any]) -> pa.Table:
    """Return rows of a scan that never saw a pixel."""
    count = len(sizes)
    rows: dict[str, list[Any]] = {name: [None] * count for name in tables.SOURCE.names}
    rows |= {
        "uri": [f"file:///images/{at}.jpg" for at in range(count)],
        "sha256": [sha256_hex(b"%d" % at) for at in range(count)],
        "length": [1000 + at for at in range(count)],
        "width": [width for width, _ in sizes],
        "height": [height for _, height in sizes],
        "format": ["JPEG"] * count,
        "status": ["ok"] * count,
        **columns,
    }
    return pa.table(rows, schema=tables.SOURCE)


def recipe_with(*overrides: str) -> Recipe:
    return load_recipe("canny", ["samples_per_unit=4", *overrides])


def test_limits_become_rows_with_value_and_threshold() -> None:
    sizes = [(100, 100), (2000, 2000), (900, 100), (9, 9), (50, 60), (40, 40)]
    lengths = [10, 10, 10, 10, 99, 10]
    rows = source(sizes, length=lengths, status=["ok"] * 5 + ["rejected:duplicate"])
    overrides = ["max_pixels=1000000", "max_bytes=50", "max_aspect=8", "min_side=10"]
    judged = judge(rows, recipe_with(*(f"rules.{one}" for one in overrides))).to_pylist()
    found = {row["uri"][-5]: (row["status"], row["value"], row["threshold"]) for row in judged}
    assert found == {
        "0": ("ok", None, None),
        "1": ("rejected:max_pixels", 4_000_000, 1_000_000),
        "2": ("rejected:max_aspect", 9, 8),
        "3": ("rejected:min_side", 9, 10),
        "4": ("rejected:max_bytes", 99, 50),
        "5": ("rejected:duplicate", None, None),
    }
    assert [row["rank"] for row in judged] == [0, None, None, None, None, None]


def test_a_limit_itself_is_allowed() -> None:
    rules = ["max_pixels=200", "max_bytes=1000", "max_aspect=2", "min_side=10"]
    recipe = recipe_with(*(f"rules.{one}" for one in rules))
    assert judge(source([(20, 10)]), recipe)["status"].to_pylist() == ["ok"]


@pytest.mark.parametrize(
    ("fits", "rule"),
    [([], "max_bytes"), (["max_bytes"], "max_pixels"), (["max_bytes", "max_pixels"], "max_aspect")],
)
def test_an_image_is_told_the_first_limit_it_breaks(fits: list[str], rule: str) -> None:
    """One image breaks all four; its row names one, always the same."""
    breaks = {"max_bytes": 999, "max_pixels": 29, "max_aspect": 2, "min_side": 4}
    limits = [f"rules.{one}={limit}" for one, limit in breaks.items() if one not in fits]
    judged = judge(source([(10, 3)]), recipe_with(*limits)).to_pylist()
    assert judged[0]["status"] == f"rejected:{rule}"
    assert judged[0]["threshold"] == breaks[rule]


def test_rows_without_a_size_keep_their_reason() -> None:
    rows = source(
        [(None, None), (50, 50), (None, None)],
        status=["failed:OSError", "ok", "rejected:damaged"],
        length=[None, 10, 10],
    )
    judged = judge(rows, recipe_with("rules.max_bytes=10")).to_pylist()
    assert [row["status"] for row in judged] == ["ok", "failed:OSError", "rejected:damaged"]
    assert [row["value"] for row in judged] == [None] * 3


SIZES = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), max_size=20)


@given(SIZES, st.integers(1, 10))
def test_nothing_is_lost_and_judging_again_changes_nothing(
    sizes: list[tuple[int, int]], most: int
) -> None:
    recipe = _LIMITED.model_copy(update={"max_images": most})
    rows = source(sizes)
    judged = judge(rows, recipe)
    assert sorted(judged["sha256"].to_pylist()) == sorted(rows["sha256"].to_pylist())
    kept = [row for row in judged.to_pylist() if row["status"] == "ok"]
    assert [row["rank"] for row in judged.to_pylist()[: len(kept)]] == list(range(len(kept)))
    assert all(row["rank"] is None for row in judged.to_pylist()[len(kept) :])
    assert len(kept) <= most
    assert judge(judged, recipe).equals(judged)


def test_the_best_by_popularity_or_resolution_are_taken() -> None:
    rows = source([(10, 10), (30, 30), (20, 20)], popularity=[5.0, None, 7.0])

    def order(*overrides: str) -> list[str]:
        judged = judge(rows, recipe_with("rules.min_side=1", *overrides))
        return [row["uri"][-5] for row in judged.to_pylist() if row["status"] == "ok"]

    assert order() == ["1", "2", "0"]
    assert order("ranking=popularity") == ["2", "0", "1"]
    assert order("ranking=popularity", "max_images=2") == ["2", "0"]
    cut = judge(rows, recipe_with("max_images=1")).to_pylist()[1]
    assert (cut["status"], cut["value"], cut["threshold"]) == ("rejected:max_images", 2, 1)


def test_without_its_label_an_image_is_no_use() -> None:
    rows = source([(9, 9), (8, 8)], label=["file:///a.png", None], label_sha256=["ab", None])
    judged = judge(rows, load_recipe("seg_ade20k"))
    assert judged["status"].to_pylist() == ["ok", "rejected:label"]


@given(
    st.lists(st.tuples(st.integers(2, 50), st.integers(2, 50)), min_size=1, max_size=30),
    st.integers(1, 7),
)
def test_every_image_has_one_place(sizes: list[tuple[int, int]], per_unit: int) -> None:
    recipe = _RECIPE.model_copy(update={"samples_per_unit": per_unit})
    judged = judge(source(sizes), recipe)
    plan, unit_ids = cut_units(judged, recipe)
    assert plan["sha256"].to_pylist() == rank(judged)["sha256"].to_pylist()
    assert plan["unit"].to_pylist() == [at // per_unit for at in range(len(sizes))]
    assert len(unit_ids) == len(set(unit_ids)) == math.ceil(len(sizes) / per_unit)


_RECIPE = recipe_with("rules.max_aspect=30")
_LIMITED = recipe_with("rules.max_aspect=4", "rules.min_side=8", "rules.max_pixels=2500")


def dataset_of(rows: pa.Table, recipe: Recipe, out: Path) -> pq.ParquetFile:
    claim(str(out), recipe)
    freeze(str(out), recipe, rows, {"images": ["here"]})
    return tables.open_parquet(str(out / layout.PLAN))


def test_row_groups_are_units_and_ids_can_be_made_again(tmp_path: Path) -> None:
    with dataset_of(source([(9 + at, 9) for at in range(10)]), _RECIPE, tmp_path) as plan:
        ids = json.loads(plan.schema_arrow.metadata[b"unit_ids"])
        groups = [plan.read_row_group(at) for at in range(plan.num_row_groups)]
    assert [group.num_rows for group in groups] == [4, 4, 2]
    made = [unit_id(_RECIPE.fingerprint, group["sha256"].to_pylist()) for group in groups]
    assert made == ids


def test_unit_ids_name_recipe_images_and_labels() -> None:
    def ids(recipe: Recipe, label: str = "x") -> list[str]:
        rows = source([(9, 9)] * 5, label=["file:///a"] * 5, label_sha256=["x"] * 4 + [label])
        return cut_units(judge(rows, recipe), recipe)[1]

    labelled = load_recipe("seg_ade20k", ["samples_per_unit=1"])
    before, after = ids(labelled), ids(labelled, "y")
    assert len(set(before) - set(after)) == 1
    assert ids(_RECIPE) == ids(_RECIPE, "y")
    assert not set(ids(_RECIPE)) & set(ids(recipe_with("seed=1", "rules.max_aspect=30")))


def test_1k_nests_in_10k_of_20000_rows_without_a_pixel(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    sides = draw.integers(256, 4000, (20_000, 2)).tolist()
    rows = source([(width, height) for width, height in sides])
    recipe = recipe_with("samples_per_unit=512")
    with dataset_of(rows, recipe, tmp_path) as plan:
        assert plan.num_row_groups == 40
        hashes = plan.read(["sha256"])["sha256"].to_pylist()
    assert len(set(hashes)) == 20_000
    for policy in ("top", "stratified"):
        small, large = (
            {hashes[at] for at in subset_ranks(20_000, count, policy=policy, seed=1)}
            for count in (1_000, 10_000)
        )
        assert len(small) == 1_000
        assert small < large
        if policy == "top":
            assert small == set(hashes[:1_000])


def test_the_same_freeze_is_harmless_and_another_refused(tmp_path: Path) -> None:
    rows = source([(9, 9), (8, 8)])
    dataset_of(rows, _RECIPE, tmp_path).close()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    dataset_of(rows, _RECIPE, tmp_path).close()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(DatasetError, match="planned from other images"):
        dataset_of(rows.slice(1), _RECIPE, tmp_path)
    with pytest.raises(DatasetError, match=r"differ in: seed \(0 there, 4 here\)"):
        claim(str(tmp_path), _RECIPE.model_copy(update={"seed": 4}))


def test_rows_put_together_on_disk_make_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, count = np.random.default_rng(0), 60
    found = source(
        [(int(width), int(height)) for width, height in draw.integers(32, 900, (count, 2))],
        sha256=[sha256_hex(b"%d" % at) for at in draw.integers(0, 40, count)],
        caption=[None if at % 3 else f"caption {at}" for at in range(count)],
        scores=[[("a", float(at))] if at % 4 == 0 else [] for at in range(count)],
        phash=draw.integers(0, 1 << 16, count).astype(np.uint64),
    )
    recipe = recipe_with("samples_per_unit=7", "rules.min_side=64", "rules.near_duplicates=3")

    def made(name: str) -> list[bytes]:
        table = to_ranked_table(mark_duplicates(found))
        assert tables.count_values(table["status"])["rejected:duplicate"] > 5
        claim(str(tmp_path / name), recipe)
        freeze(str(tmp_path / name), recipe, table, {})
        return [(tmp_path / name / file).read_bytes() for file in (layout.SOURCE, layout.PLAN)]

    in_memory = made("memory")
    monkeypatch.setattr(spill, "ROWS_IN_MEMORY", 4)
    monkeypatch.setattr(spill, "_PIECE", 3)
    assert made("disk") == in_memory


def test_a_dataset_of_another_format_is_refused(tmp_path: Path) -> None:
    claim(str(tmp_path), _RECIPE.model_copy(update={"format": 2}))
    with pytest.raises(DatasetError, match=r"differ in: format \(2 there, 3 here\)"):
        claim(str(tmp_path), _RECIPE)


def test_a_dataset_goes_on_in_the_format_that_it_was_begun_in(tmp_path: Path) -> None:
    begun = _RECIPE.model_copy(update={"format": 2})
    assert as_begun(str(tmp_path), _RECIPE, captions=False) == _RECIPE
    claim(str(tmp_path), begun)
    written = json.loads((tmp_path / layout.RECIPE).read_text())
    del written["recipe"]["format"]  # as it was before that could be chosen
    (tmp_path / layout.RECIPE).write_text(json.dumps(written))
    assert as_begun(str(tmp_path), _RECIPE, captions=False) == begun
    claim(str(tmp_path), begun)
    assert recipe_of(Dataset.open(str(tmp_path))) == begun


def test_what_moves_no_byte_claims_the_same_dataset(tmp_path: Path) -> None:
    claim(str(tmp_path), _RECIPE)
    before = (tmp_path / layout.RECIPE).read_bytes()
    claim(str(tmp_path), _RECIPE.model_copy(update={"training": None}))
    assert (tmp_path / layout.RECIPE).read_bytes() == before


def test_no_usable_image_is_an_error(tmp_path: Path) -> None:
    rows = source([(9, 9)], status=["rejected:damaged"])
    with pytest.raises(UsageError, match=r"none of 1 images is usable.*rejected:damaged"):
        dataset_of(rows, _RECIPE, tmp_path)


def test_no_usable_image_tells_the_first_reasons(tmp_path: Path) -> None:
    rows = source([(9, 9)] * 4, status=["rejected:damaged"] * 3 + ["failed:SourceError"])
    metadata = {"ignored": {".heic": 8}}
    with pytest.raises(UsageError) as raised:
        freeze(str(tmp_path), _RECIPE, rows, metadata)
    first, *lines, passed, where = str(raised.value).splitlines()
    assert first == "none of 4 images is usable: 1 failed:SourceError, 3 rejected:damaged"
    assert len(lines) == 3
    assert all(": rejected:damaged" in line or ": failed:SourceError" in line for line in lines)
    assert passed == "  passed over: 8 .heic"
    assert where == f"  all of them: {tmp_path}/logs/unusable.parquet"
    kept = tables.read_table(f"{tmp_path}/logs/unusable.parquet")["status"].to_pylist()
    assert sorted(kept) == ["failed:SourceError", *["rejected:damaged"] * 3]
    with pytest.raises(UsageError, match="no image is in what was given"):
        freeze(str(tmp_path), _RECIPE, rows.slice(4), {})


def test_a_dry_run_sums_up() -> None:
    rows = source([(600, 600)] * 5 + [(5, 5)], status=["ok"] * 5 + ["rejected:damaged"])
    told = summarize(judge(rows, _RECIPE), _RECIPE)
    assert (told.units, told.images, told.rejects) == (2, 5, {"rejected:damaged": 1})
    assert told.bytes_to_read == sum(range(1000, 1005))
    assert told.fingerprint == _RECIPE.fingerprint
    none = summarize(judge(rows.slice(5), _RECIPE), _RECIPE)
    assert (none.units, none.images, none.bytes_to_read, none.bytes_to_write) == (0, 0, 0, 0)
    assert 5 * 512 * 512 * 0.3 < told.bytes_to_write < 5 * 512 * 512 * 1.5
