"""What planning costs at 3M images: rank, plan, resume, status, finalize, subsets; no pixels.

    python -m benchmarks.planning [--rows 3000000] [--out FOLDER] [--keep]

The rows are synthetic and made as Arrow columns: names, random hashes, sizes and captions as a
scan would find them, 1% duplicates, 0.1% broken files. A unit is an empty tar and a true parquet
of rows, committed by the protocol itself. Each step runs in a process of its own, whose wall time
and highest resident memory are printed beside the target.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from catalog import dataset as layout
from catalog import storage, tables
from catalog.commits import Attempt, commit_unit
from catalog.dataset import Dataset
from pipeline.plan import claim, freeze
from pipeline.recipe import Recipe, load_recipe
from pipeline.scan import rank_rows

SUBSETS = (1_000, 10_000, 50_000, 500_000)
PART = 100_000  # synthetic rows made at a time
UNIT = 500  # 3M images are 6,000 units

TARGETS = {
    "rank": "60 s and 4 GiB, with plan and subsets",
    "plan": "",
    "commit": "",
    "resume": "5 s",
    "status": "2 s",
    "finalize": "",
    "subsets": "",
}


def make_rows(folder: Path, total: int) -> None:
    """Write what scanning would have left: parquets of rows in the order of the listing."""
    draw = np.random.default_rng(0)
    (folder / "rows").mkdir(parents=True)
    for start in range(0, total, PART):
        rows = synthetic(draw, start, min(PART, total - start))
        pq.write_table(rows, folder / "rows" / f"{start:09d}.parquet", compression="zstd")


def synthetic(draw: np.random.Generator, start: int, count: int) -> pa.Table:
    number = pa.array(np.arange(start, start + count))
    name = pc.utf8_lpad(pc.cast(number, pa.string()), 9, "0")
    raw = draw.bytes(32 * count).hex()
    offsets = np.arange(0, 64 * count + 1, 64, dtype=np.int32)
    sha256 = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(raw.encode()))
    same = draw.random(count) < 0.01  # duplicates: the hash of the row before
    sha256 = sha256.take(pa.array(np.maximum(np.arange(count) - same, 0)))
    broken = pa.array(draw.random(count) < 0.001)
    sides = draw.integers(256, 4_000, (2, count), dtype=np.int32)
    scores = pa.MapArray.from_arrays(
        np.arange(0, count + 1, dtype=np.int32),
        pa.array(["aesthetic"] * count),
        pa.array(draw.random(count)),
    )
    columns = {
        "uri": pc.binary_join_element_wise("s3://bucket/laion/", name, ".jpg", ""),
        "length": pa.array(draw.integers(20_000, 900_000, count)),
        "sha256": sha256,
        "width": pc.if_else(broken, None, pa.array(sides[0])),
        "height": pc.if_else(broken, None, pa.array(sides[1])),
        "format": pa.array(["JPEG"] * count),
        "caption": pc.binary_join_element_wise("a photograph of thing number ", name, " here", ""),
        "popularity": pa.array(draw.random(count)),
        "scores": scores,
        "status": pc.if_else(broken, "rejected:damaged", "ok"),
    }
    none = {f.name: pa.nulls(count, f.type) for f in tables.SOURCE}
    return pa.table({**none, **columns}).cast(tables.SOURCE)


def rank_step(folder: Path) -> str:
    parts = [pq.read_table(path) for path in sorted((folder / "rows").iterdir())]
    table = rank_rows(pa.concat_tables(parts))
    data = tables.to_parquet(table, {"images": ["synthetic"]})
    storage.write_atomic(str(folder / "source.parquet"), data)
    return f"{table.num_rows:,} rows, {pc.sum(pc.equal(table['status'], 'ok')).as_py():,} usable"


def plan_step(folder: Path) -> str:
    recipe = bench_recipe()
    source = tables.read_table(str(folder / "source.parquet"))
    claim(str(folder / "d"), recipe)
    freeze(str(folder / "d"), recipe, source.replace_schema_metadata(None), {"images": []})
    sizes = [(folder / "d" / name).stat().st_size for name in (layout.SOURCE, layout.PLAN)]
    return "source {:,} MB, plan {:,} MB".format(*(size // 1_000_000 for size in sizes))


def commit_step(folder: Path) -> str:
    """Commit every unit by the protocol, from 8 threads: an empty tar, a full parquet of rows."""
    dataset = Dataset.open(str(folder / "d"))
    plan = tables.open_parquet(dataset.path(layout.PLAN))
    (folder / "d" / "tmp").mkdir(exist_ok=True)
    seconds: list[float] = []

    def commit(index: int) -> None:
        attempt = attempt_of(folder / "d" / "tmp", dataset, plan.read_row_group(index), index)
        start = time.perf_counter()
        commit_unit(dataset.uri, attempt)
        seconds.append(time.perf_counter() - start)
        attempt.tar.unlink()
        attempt.rows.unlink()

    todo = dataset.pending()
    for index in todo:
        commit(index)
    spent = sum(seconds) / max(len(seconds), 1)
    return f"{len(todo):,} units, {spent * 1e3:.1f} ms a commit, the rest is making the rows"


def attempt_of(scratch: Path, dataset: Dataset, rows: pa.Table, index: int) -> Attempt:
    count, unit = rows.num_rows, dataset.unit_ids[index]
    columns: dict[str, object] = {f.name: pa.nulls(count, f.type) for f in tables.ROWS}
    lost = pa.array(np.arange(count) % 50 == 7)  # 2% rejected
    columns |= {
        "key": pc.utf8_slice_codeunits(rows["sha256"], 0, 32),
        "sha256": rows["sha256"],
        "offset": np.arange(count) * 200_000,
        "length": np.full(count, 199_680),
        "block_sha256": rows["sha256"],
        "width": np.full(count, 512, np.int32),
        "height": np.full(count, 512, np.int32),
        "source_width": rows["width"],
        "source_height": rows["height"],
        "caption": rows["caption"],
        "parameters": ['{"canny":{"high":200,"low":100}}'] * count,
        "popularity": rows["popularity"],
        "status": pc.if_else(lost, "rejected:min_coverage", "ok"),
    }
    table = pa.table(columns).cast(tables.ROWS)
    tar, parquet = scratch / f"{index}.tar", scratch / f"{index}.parquet"
    tar.write_bytes(b"")
    parquet.write_bytes(tables.to_parquet(table))
    few = int(pc.sum(lost).as_py() or 0)
    return Attempt(
        unit_id=unit, index=index, fingerprint=dataset.fingerprint, tar=tar, rows=parquet,
        counts={"ok": count - few, "rejected:min_coverage": few}, environment={"simulated": "yes"},
    )  # fmt: skip


def resume_step(folder: Path) -> str:
    return f"{len(Dataset.open(str(folder / 'd')).pending()):,} units pending"


def status_step(folder: Path) -> str:
    status = Dataset.open(str(folder / "d")).status()
    return f"{status.units_done:,} of {status.units:,} units, {status.samples:,} samples"


def finalize_step(folder: Path) -> str:
    dataset = Dataset.open(str(folder / "d"))
    dataset.finalize()
    return f"manifest {(folder / 'd' / layout.MANIFEST).stat().st_size // 1_000_000:,} MB"


def subsets_step(folder: Path) -> str:
    dataset = Dataset.open(str(folder / "d"))
    total = tables.open_parquet(dataset.path(layout.MANIFEST)).metadata.num_rows
    counts = [count for count in SUBSETS if count <= total]
    return ", ".join(dataset.write_subset(n, policy="top", seed=0).name for n in counts)


STEPS: dict[str, Callable[[Path], str]] = {
    "rank": rank_step,
    "plan": plan_step,
    "commit": commit_step,
    "resume": resume_step,
    "status": status_step,
    "finalize": finalize_step,
    "subsets": subsets_step,
}


def bench_recipe() -> Recipe:
    return load_recipe("canny", [f"samples_per_unit={UNIT}"])


def run_step(name: str, folder: Path) -> dict[str, object]:
    line = [sys.executable, "-m", "benchmarks.planning", "--step", name, "--out", str(folder)]
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(name: str, folder: Path) -> dict[str, object]:
    start = time.perf_counter()
    said = STEPS[name](folder)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    return {"seconds": seconds, "gib": peak, "said": said}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=3_000_000)
    parser.add_argument("--out", type=Path, help="folder to work in; default a temporary one")
    parser.add_argument("--keep", action="store_true", help="leave the folder behind")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        print(json.dumps(measured(given.step, given.out)))
        return
    folder = given.out or Path(tempfile.mkdtemp(prefix="planning-"))
    try:
        make_rows(folder, given.rows)
        print(f"{given.rows:,} rows, units of {UNIT}\n")
        print(f"{'step':9} {'seconds':>8} {'peak GiB':>9}  target")
        for name in STEPS:
            found = run_step(name, folder)
            print(
                f"{name:9} {found['seconds']:8.2f} {found['gib']:9.2f}  {TARGETS[name]:24}", end=""
            )
            print(f"  {found['said']}", flush=True)
    finally:
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
