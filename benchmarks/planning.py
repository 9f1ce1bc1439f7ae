"""What planning millions of images costs: plan, fold, compare, append; no pixel is read.

    python benchmarks/planning.py [--rows 3000000] [--units 6000] [--no-build] [--scratch FOLDER]

Source rows are made up as columns, with sizes, captions and URIs as a crawl has them. Each step
runs in a process of its own, so that its peak memory is its own: what the process alone holds, and
beside it what it has mapped of files, whose pages the system may drop. The commits name shards that
are never written, as no step reads them; their parquets of rows are real.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if sys.path[0] == str(Path(__file__).parent):
    sys.path.pop(0)  # there benchmarks would hide the packages of their names

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog import tables
from catalog.dataset import snapshots
from catalog.dataset.commits import Commit, StoredFile
from catalog.dataset.dataset import Dataset
from catalog.sample import OK, sample_key
from pipeline.build.build import build
from pipeline.build.local import run_local
from pipeline.ledger.diff import diff
from pipeline.ledger.requery import changed_recipe, requery
from pipeline.plan.freeze import claim, freeze
from pipeline.plan.growth import grow
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe, load_recipe
from pipeline.scan.duplicates import mark_duplicates
from pipeline.scan.scan import to_ranked_table
from pipeline.scan.source import Inputs

SUBSETS = (1_000, 10_000, 50_000, 500_000)
SOURCE = "source.parquet"
_PIECE = 500_000  # rows made at a time
DATASET = "dataset"


def recipe_for(rows: int, units: int) -> Recipe:
    return load_recipe("canny", [f"samples_per_unit={-(-rows // units)}"])


def hex_column(first: int, count: int) -> pa.Array:
    """Return hex sha256s of `first`, ...: rows of 64 characters, without a Python string each."""
    numbers = range(first, first + count)
    digests = b"".join(hashlib.sha256(b"%d" % number).digest() for number in numbers)
    letters = np.frombuffer(digests.hex().encode(), np.uint8)
    offsets = np.arange(0, 64 * count + 1, 64, dtype=np.int64)
    wide = pa.Array.from_buffers(
        pa.large_string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(letters)]
    )
    return wide.cast(pa.string())


def make_source(scratch: Path, rows: int, units: int) -> None:
    """Write a scanned table, as `scan` leaves it but for the ranking."""
    draw = np.random.default_rng(0)
    firsts = range(0, rows, _PIECE)
    pieces = (some_rows(draw, first, min(_PIECE, rows - first)) for first in firsts)
    tables.write_parquet(str(scratch / SOURCE), tables.SOURCE, pieces)


def some_rows(draw: np.random.Generator, first: int, count: int) -> pa.Table:
    numbers = np.arange(first, first + count)
    columns: dict[str, Any] = {
        "uri": pa.array([f"s3://crawl/{at // 10_000:05d}/{at:09d}.jpg" for at in numbers]),
        "length": pa.array(draw.integers(20_000, 3_000_000, count)),
        "sha256": hex_column(first, count),
        "width": pa.array(draw.integers(256, 4096, count).astype(np.int32)),
        "height": pa.array(draw.integers(256, 4096, count).astype(np.int32)),
        "format": pa.array(["JPEG"] * count),
        "caption": pa.array([f"a photograph of the thing number {at}" for at in numbers]),
        "status": pa.array([OK] * count),
    }
    empty = {field.name: pa.nulls(count, field.type) for field in tables.SOURCE}
    return pa.table({**empty, **columns}).select(tables.SOURCE.names).cast(tables.SOURCE)


def read_source(scratch: Path) -> pa.Table:
    return tables.read_table(str(scratch / SOURCE)).cast(tables.SOURCE)


def fold_scan(scratch: Path, rows: int, units: int) -> None:
    """Find exact duplicates among scanned rows, and rank the others."""
    to_ranked_table(mark_duplicates(read_source(scratch)))


def plan(scratch: Path, rows: int, units: int) -> None:
    """Judge, rank, cut into units and freeze to disk."""
    recipe = recipe_for(rows, units)
    dataset = str(scratch / DATASET)
    claim(dataset, recipe)
    freeze(dataset, recipe, read_source(scratch), {})


def make_commits(scratch: Path, rows: int, units: int) -> None:
    """Commit every unit: a parquet of its rows, and a tar that is only named."""
    dataset = Dataset.open(str(scratch / DATASET))
    shards, commits = (scratch / DATASET / name for name in ("shards", "commits"))
    shards.mkdir()
    commits.mkdir()
    with tables.open_parquet(dataset.path("plan.parquet")) as file:
        for index, unit in enumerate(dataset.unit_ids):
            planned = file.read_row_group(index)
            count = planned.num_rows
            stem = f"{index:06d}-{unit[:8]}"
            (shards / f"{stem}.parquet").write_bytes(tables.to_parquet(unit_rows(planned)))
            commit = Commit(
                unit_id=unit,
                index=index,
                fingerprint=dataset.fingerprint,
                shard=StoredFile(name=f"{stem}.tar", bytes=count * 250_000, sha256="0" * 64),
                rows=StoredFile(name=f"{stem}.parquet", bytes=1, sha256="0" * 64),
                counts={OK: count},
                environment={"device": "cpu"},
            )
            (commits / f"{unit}.json").write_bytes(commit.to_json())


def unit_rows(planned: pa.Table) -> pa.Table:
    count = planned.num_rows
    known: dict[str, Any] = {
        "key": pa.array([sample_key(sha256) for sha256 in planned["sha256"].to_pylist()]),
        "sha256": planned["sha256"],
        "offset": pa.array(np.arange(count) * 250_000),
        "length": pa.array([250_000] * count),
        "block_sha256": planned["sha256"],
        "width": pa.array([512] * count),
        "height": pa.array([512] * count),
        "source_width": planned["width"],
        "source_height": planned["height"],
        "caption": planned["caption"],
        "parameters": pa.array(['{"canny":{"coverage":0.1,"high":200,"low":100}}'] * count),
        "status": pa.array([OK] * count),
    }
    empty = {field.name: pa.nulls(count, field.type) for field in tables.ROWS}
    return pa.table({**empty, **known}).select(tables.ROWS.names).cast(tables.ROWS)


def resume(scratch: Path, rows: int, units: int) -> None:
    """Find what is left to do, with all units but none committed."""
    assert Dataset.open(str(scratch / DATASET)).pending() == []


def status(scratch: Path, rows: int, units: int) -> None:
    """Count units, images, samples and rejects."""
    found = Dataset.open(str(scratch / DATASET)).status()
    assert (found.samples, found.units_done) == (rows, units), found


def finalize(scratch: Path, rows: int, units: int) -> None:
    """Fold all commits into manifest and rejects."""
    assert Dataset.open(str(scratch / DATASET)).finalize()


def write_subsets(scratch: Path, rows: int, units: int) -> None:
    """Write the nested subsets."""
    dataset = Dataset.open(str(scratch / DATASET))
    for size in SUBSETS:
        if size <= rows:
            dataset.write_subset(size, policy="top", seed=0)


def compare(scratch: Path, rows: int, units: int) -> None:
    """Compare the dataset with a snapshot of itself, by the keys and hashes of all samples."""
    dataset = Dataset.open(str(scratch / DATASET))
    snapshots.take_snapshot(dataset, "night")
    found = diff(dataset, "night")
    assert (found.before, found.added, found.changed) == (rows, [], []), found


def foretell(scratch: Path, rows: int, units: int) -> None:
    """Judge every row of the ledger by another threshold."""
    dataset = Dataset.open(str(scratch / DATASET))
    found = requery(dataset, changed_recipe(dataset, ["rules.min_sharpness=0.1"]))
    assert sum(found.after.values()) == rows, found


def append(scratch: Path, rows: int, units: int) -> None:
    """Plan the next generation: of every hundred images one is another one now."""
    source = read_source(scratch)
    hashes = source["sha256"]
    other = pc.if_else(pc.ends_with(source["uri"], "00.jpg"), pc.utf8_reverse(hashes), hashes)
    column = source.schema.get_field_index("sha256")
    dataset = Dataset.open(str(scratch / DATASET))
    new = source.set_column(column, source.schema.field("sha256"), other)
    growth = grow(dataset, recipe_for(rows, units), new, {})
    assert growth is not None
    assert (growth.added, growth.gone) == (rows // 100, rows // 100), growth


def build_empty(scratch: Path, rows: int, units: int) -> None:
    """Build a third of the rows, none of whose files is there: what a row and a unit cost."""
    source = read_source(scratch).slice(0, rows // 3)
    gone = pa.array([f"file:///gone/{at:09d}.jpg" for at in range(source.num_rows)])
    at = source.schema.get_field_index("uri")
    pq.write_table(source.set_column(at, "uri", gone), scratch / "gone.parquet")
    result = build(
        recipe_for(rows, units),
        str(scratch / "empty"),
        Inputs(source=str(scratch / "gone.parquet")),
        Execution(),
        executor=run_local,
        observer=Watch(),
    )
    assert result.status.rejects == {"failed:FileNotFoundError": source.num_rows}


class Watch:
    """Shows nothing."""

    def scanning(self) -> Callable[[int, int], None]:
        return lambda done, total: None

    def planned(self, units: int, pending: int, images: int) -> None: ...

    def unit_done(self, report: object) -> None: ...

    def unit_failed(self, failure: object) -> None:
        print(failure, file=sys.stderr)


STEPS: dict[str, Callable[[Path, int, int], None]] = {
    "(make source rows)": make_source,
    "duplicates and first ranking": fold_scan,
    "judge, rank, plan, freeze": plan,
    "(make commits)": make_commits,
    "resume check": resume,
    "status": status,
    "finalize": finalize,
    "subsets 1k, 10k, 50k, 500k": write_subsets,
    "snapshot, diff": compare,
    "requery": foretell,
    "append: one in 100 is new": append,
    "build a third, all files gone": build_empty,
}


def run_step(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one step in a process of its own; return its seconds and peak memory in MiB."""
    line = [sys.executable, __file__, "--step", name, "--scratch", str(options.scratch)]
    line += ["--rows", str(options.rows), "--units", str(options.units)]
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


@contextmanager
def measured() -> Iterator[list[float]]:
    """Yield a list that gets the process's own memory, in MiB, twenty times a second."""
    own, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            own.append(int(next(one for one in lines if "RssAnon" in one).split()[1]) / 1024)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield own
    finally:
        done.set()
        watcher.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--units", type=int, default=6_000)
    parser.add_argument("--no-build", action="store_true", help="leave the last step out")
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        with measured() as own:
            start = time.perf_counter()
            STEPS[options.step](options.scratch, options.rows, options.units)
            seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "own": max(own), "peak": peak}))
        return
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        options.scratch = Path(scratch)
        print(f"{options.rows:,} source rows, {options.units:,} units")
        for name in list(STEPS)[: -1 if options.no_build else None]:
            found = run_step(name, options)
            memory = f"own {found['own']:6,.0f} MiB, with files {found['peak']:6,.0f} MiB"
            figures = f"{found['seconds']:7.1f} s  {memory}"
            print(f"{name:32} {figures}", flush=True)


if __name__ == "__main__":
    main()
