"""Time and size of reports: the demo's dataset, and synthetic ledgers as large as one likes.

    python benchmarks/report.py [--rows 50000 500000] [--screenshots FOLDER]

A synthetic ledger has random sizes, captions, drawn values, near duplicates and other rejects; its
rows point at the few real samples of the demo's photographs, so that thumbnails are read, checked
and drawn as ever. With a Chromium here, the time to load each page and its width on a phone are
measured as well.
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' browser is no part of the package

from catalog import commits, storage, tables
from catalog import dataset as layout
from catalog.dataset import Dataset
from catalog.ranking import rank
from catalog.sample import OK, sha256_hex
from pipeline.build import Inputs, build
from pipeline.demo import collect
from pipeline.execution import Execution
from pipeline.local_executor import run_local
from pipeline.recipe import load_recipe
from pipeline.report.page import write_page
from tests.browser import Browser, find_chromium

RECIPE = """
name: edges_and_lines
image: {resolution: 256}
detectors:
  - {detector: canny, low: [50, 150], gap: [50, 150]}
  - {detector: lsd}
"""
NOUNS = [
    "cat",
    "dog",
    "bicycle",
    "train",
    "kitchen",
    "harbour",
    "street",
    "child",
    "woman",
    "man",
    "boat",
    "horse",
    "table",
    "cup",
]
WORDS = [
    "red",
    "old",
    "small",
    "wooden",
    "bright",
    "quiet",
    "crowded",
    "empty",
    "green",
    "blue",
    "large",
    "wet",
    "snowy",
]
RULES = {  # share of all images, and (threshold, from, to) of the measured value
    "rejected:near_duplicate": (0.06, None),
    "rejected:duplicate": (0.05, None),
    "rejected:min_side": (0.04, (256, 40, 255)),
    "rejected:blur": (0.02, (60.0, 1.0, 60.0)),
    "rejected:max_aspect": (0.01, (4.0, 4.0, 16.0)),
    "failed:FileNotFoundError": (0.001, None),
}


class Silent:
    """Shows nothing."""

    def scanning(self) -> Callable[[int, int], None]:
        return lambda done, total: None

    def planned(self, units: int, pending: int, images: int) -> None: ...

    def unit_done(self, report: object) -> None: ...

    def unit_failed(self, failure: object) -> None: ...


def build_real(folder: Path) -> Dataset:
    collect(folder / "photographs")
    (folder / "recipe.yaml").write_text(RECIPE)
    recipe = load_recipe(str(folder / "recipe.yaml"))
    inputs = Inputs(images=[str(folder / "photographs")])
    out = str(folder / "real")
    build(recipe, out, inputs, Execution(), executor=run_local, observer=Silent())
    return Dataset.open(out)


def write_synthetic(real: Dataset, out: Path, rows: int) -> Dataset:
    """Write a dataset whose ledger is made up and whose shards are the real one's."""
    draw = np.random.default_rng(0)
    out.mkdir()
    for name in ("shards", layout.RECIPE):
        os.symlink(real.path(name), out / name)
    samples = ledger(real, rows, draw)
    lost = rejects(real, samples, round(rows * 0.2), draw)
    source = lost.append_column("rank", pa.nulls(lost.num_rows, pa.int64()))
    source = pa.Table.from_pylist([], tables.SOURCE) if not lost else conform(source, tables.SOURCE)
    write(out / layout.SOURCE, source)
    ids = {"unit_ids": real.unit_ids}
    plan = conform(samples.select(["sha256"]), tables.PLAN)
    storage.write_atomic(str(out / layout.PLAN), tables.to_parquet(plan, ids))
    folded = {"folded": sha256_hex("".join(sorted(real.unit_ids)).encode())}
    for name, table in ((layout.MANIFEST, samples), (layout.REJECTS, lost)):
        storage.write_atomic(str(out / name), tables.to_parquet(table, folded))
    for commit in commits.read_commits(real.uri):
        made = replace(commit, counts={OK: rows})
        path = out / "commits" / f"{commit.unit_id}.json"
        storage.write_atomic(str(path), made.to_json())
    made = Dataset.open(str(out))
    for count in (1_000, 10_000, 50_000):
        if count < rows:
            made.write_subset(count, policy="top", seed=0)
    return made


def ledger(real: Dataset, rows: int, draw: np.random.Generator) -> pa.Table:
    kept = real.view().table
    table = kept.take(pa.array(np.arange(rows) % kept.num_rows))
    width = np.clip(draw.lognormal(7.0, 0.5, rows), 256, 12_000).astype(np.int32)
    height = np.clip(width * draw.choice([0.67, 0.75, 1.0, 1.33, 1.5], rows), 256, None)
    low, gap = draw.integers(50, 151, rows), draw.integers(50, 151, rows)
    edges, lines = draw.beta(2, 14, rows), draw.beta(1.5, 20, rows)
    found = {
        "source_width": width,
        "source_height": height.astype(np.int32),
        "caption": captions(rows, draw),
        "parameters": [
            f'{{"canny":{{"coverage":{a:.6f},"high":{h},"low":{n}}},"lsd":{{"coverage":{b:.6f},"lines":{k}}}}}'
            for a, h, n, b, k in zip(
                edges, low + gap, low, lines, draw.poisson(40, rows), strict=True
            )
        ],
    }
    for name, values in found.items():
        at = table.schema.get_field_index(name)
        field = table.schema.field(name)
        table = table.set_column(at, field, pa.array(values, field.type))
    table = rank(table, width_column="source_width", height_column="source_height")
    at = table.schema.get_field_index("rank")
    return table.set_column(at, "rank", pa.array(range(rows), pa.int64()))


def captions(rows: int, draw: np.random.Generator) -> list[str]:
    length = draw.poisson(3, rows)
    words, nouns = draw.choice(WORDS, (rows, 12)), draw.choice(NOUNS, rows)
    texts = [
        f"a {' '.join(some[:number])} {noun}".replace("  ", " ")
        for some, number, noun in zip(words.tolist(), length.tolist(), nouns.tolist(), strict=True)
    ]
    for at in np.flatnonzero(draw.random(rows) < 0.01):
        texts[at] = ""
    return texts


def rejects(real: Dataset, samples: pa.Table, rows: int, draw: np.random.Generator) -> pa.Table:
    places = tables.read_table(real.path(layout.PLAN), ["uri", "sha256", "width", "height"])
    where, parts = places.to_pylist(), []
    keys = samples["sha256"].slice(0, 200).to_pylist()
    total = sum(share for share, _ in RULES.values())
    for status, (share, measured) in RULES.items():
        for _ in range(round(rows * share / total)):
            record = {**where[draw.integers(len(where))], "status": status}
            if measured is not None:
                threshold, least, most = measured
                record |= {"threshold": threshold, "value": float(draw.uniform(least, most))}
            if status == "rejected:near_duplicate":
                record["detail"] = f"looks like {keys[int(draw.zipf(1.6)) % len(keys)]}"
            parts.append(record)
    return pa.Table.from_pylist(parts, schema=tables.REJECTS)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    missing = [name for name in schema.names if name not in table.schema.names]
    for name in missing:
        table = table.append_column(name, pa.nulls(len(table), schema.field(name).type))
    return table.select(schema.names).cast(schema)


def write(path: Path, table: pa.Table) -> None:
    storage.write_atomic(str(path), tables.to_parquet(table))


def measure(name: str, dataset: Dataset, folder: Path, screenshots: Path | None) -> None:
    start = time.perf_counter()
    page = write_page(dataset, samples=12)
    seconds = time.perf_counter() - start
    path = folder / f"{name}.html"
    path.write_text(page, encoding="utf-8")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    line = f"{name:<16} {seconds:6.1f} s  {len(page.encode()) / 2**20:5.2f} MiB  {peak:7.0f} MiB"
    if find_chromium() is None:
        print(f"{line}  no browser here")
        return
    with Browser() as browser:
        loads = sorted(browser.open(path, width=1200) for _ in range(5))
        phone = sorted(browser.open(path, width=390) for _ in range(5))
        wide = browser.evaluate("document.documentElement.scrollWidth")
        print(f"{line}  {loads[2]:5.2f} s  {phone[2]:5.2f} s  {wide} px of 390")
        if screenshots is not None:
            for look, width, dark in (
                ("light", 1200, False),
                ("dark", 1200, True),
                ("phone", 390, False),
            ):
                browser.open(path, width=width, dark=dark)
                (screenshots / f"report-{name}-{look}.jpg").write_bytes(browser.screenshot())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[50_000])
    parser.add_argument("--screenshots", type=Path)
    options = parser.parse_args()
    print("dataset          written in      size   peak memory  loaded   on a phone, its width")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        real = build_real(folder)
        measure("demo", real, folder, options.screenshots)
        for rows in options.rows:
            made = write_synthetic(real, folder / str(rows), rows)
            measure(f"synthetic-{rows // 1000}k", made, folder, options.screenshots)


if __name__ == "__main__":
    main()
