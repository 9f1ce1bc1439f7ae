"""What is folded piece by piece is what all rows together give, in whatever order units overlap."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog import tables
from catalog.dataset import fold
from catalog.dataset.commits import Commit, StoredFile
from catalog.dataset.plans import Plans
from catalog.sample import OK, sha256_hex
from catalog.source.ranking import Ranking, rank

LOST = "rejected:min_coverage"


def rows_of(sides: list[tuple[int, bool]], first: int) -> pa.Table:
    """Return a unit's rows, one for each (width, kept), numbered from `first` on."""
    count = len(sides)
    hashes = [sha256_hex(b"%d" % (first + at)) for at in range(count)]
    columns: dict[str, Any] = {
        "key": [one[:32] for one in hashes],
        "sha256": hashes,
        "offset": list(range(count)),
        "source_width": [width for width, _ in sides],
        "source_height": [10] * count,
        "popularity": [float(-width) if width % 3 else None for width, _ in sides],
        "status": [OK if kept else LOST for _, kept in sides],
    }
    nothing = {field.name: pa.nulls(count, field.type) for field in tables.ROWS}
    return pa.table({**nothing, **columns}).cast(tables.ROWS)


def commit_of(index: int, rows: pa.Table) -> Commit:
    shard, listed = (
        StoredFile(name=f"{index:06d}.{end}", bytes=1, sha256="0" * 64)
        for end in ("tar", "parquet")
    )
    return Commit(
        unit_id=f"{index:032x}",
        index=index,
        fingerprint="f" * 32,
        shard=shard,
        rows=listed,
        counts={OK: rows.num_rows},
        environment={},
    )


def store(folder: Path, units: list[list[tuple[int, bool]]]) -> tuple[list[Commit], pa.Table]:
    """Write the units' rows; return their commits, and all rows with their shards."""
    commits, every, first = [], [], 0
    for index, sides in enumerate(units):
        rows = rows_of(sides, first)
        first += len(sides)
        commits.append(commit_of(index, rows))
        (folder / commits[-1].rows.name).write_bytes(tables.to_parquet(rows))
        shard = pa.array([commits[-1].shard.name] * rows.num_rows, pa.string())
        every.append(rows.append_column("shard", shard))
    plan = tables.to_parquet(tables.PLAN.empty_table(), {"unit_ids": []})
    (folder / "plan.parquet").write_bytes(plan)
    return commits, pa.concat_tables(every)


UNITS = st.lists(
    st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=6), min_size=1, max_size=6
)


@given(UNITS, st.sampled_from(["resolution", "popularity"]), st.integers(1, 5))
def test_pieces_give_the_manifest_of_all_rows(
    tmp_path_factory: pytest.TempPathFactory,
    units: list[list[tuple[int, bool]]],
    by: Ranking,
    piece: int,
) -> None:
    folder = tmp_path_factory.mktemp("fold")
    commits, rows = store(folder, units)
    uri = str(folder / "manifest.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold, "_PIECE", piece)
        made = fold.Fold(str(folder), commits, Plans(str(folder)))
        made.write_manifest(uri, by=by, folded="all")
    kept = rank(
        rows.filter(pc.equal(rows["status"], OK)),
        by=by,
        width_column="source_width",
        height_column="source_height",
    )
    read = tables.read_table(uri)
    assert read["rank"].to_pylist() == list(range(kept.num_rows))
    for name in ("sha256", "shard", "offset", "source_width", "popularity"):
        assert read[name].to_pylist() == kept[name].to_pylist()
    assert tables.read_metadata(uri) == {"folded": "all"}


def test_pieces_of_the_usual_size_are_the_row_groups_of_to_parquet(tmp_path: Path) -> None:
    commits, _ = store(tmp_path, [[(50 - at, True) for at in range(40)]])
    uri = str(tmp_path / "manifest.parquet")
    fold.Fold(str(tmp_path), commits, Plans(str(tmp_path))).write_manifest(
        uri, by="resolution", folded="x"
    )
    read = tables.read_table(uri).replace_schema_metadata(None)
    assert Path(uri).read_bytes() == tables.to_parquet(read, {"folded": "x"})


def test_rejects_say_where_their_images_lie(tmp_path: Path) -> None:
    commits, rows = store(tmp_path, [[(9, True), (8, False)], [(7, False)]])
    planned = {
        "sha256": rows["sha256"],
        "uri": pa.array([f"file:///{at}" for at in range(3)]),
        "width": rows["source_width"],
    }
    every = {field.name: pa.nulls(3, field.type) for field in tables.SOURCE} | planned
    every["status"] = pa.array([OK] * 3)
    scanned = {"uri": "file:///bad", "status": "rejected:damaged"}
    source = pa.concat_tables(
        [
            pa.table(every).cast(tables.SOURCE),
            pa.Table.from_pylist([scanned], schema=tables.SOURCE),
        ]
    )
    (tmp_path / "source").write_bytes(tables.to_parquet(source))
    uri = str(tmp_path / "rejects.parquet")
    lost = fold.Fold(str(tmp_path), commits, Plans(str(tmp_path)))
    lost.write_rejects(uri, source=str(tmp_path / "source"), folded="x")
    read = tables.read_table(uri)
    assert read.schema.names == tables.REJECTS.names
    told = [(row["uri"], row["status"], row["width"]) for row in read.to_pylist()]
    assert told[0] == ("file:///bad", "rejected:damaged", None)
    assert sorted(told[1:]) == [("file:///1", LOST, 8), ("file:///2", LOST, 7)]
