"""Time and size of reports: the demo's dataset, and synthetic ledgers as large as one likes.

    python benchmarks/report.py [--rows 50000 500000] [--picture FILE]

A synthetic ledger has random sizes, captions, drawn values, near duplicates and other rejects; its
rows point at the few real samples of the demo's photographs, so that thumbnails are read, checked
and drawn as ever. With a Chromium here, the time to load each page and its width on a phone are
measured as well.
"""

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' browser is no part of the package

from catalog import storage, tables
from catalog.dataset import commits
from catalog.dataset import dataset as layout
from catalog.dataset.dataset import Dataset
from catalog.sample import OK, sha256_hex
from catalog.source.ranking import rank
from pipeline.build.build import build
from pipeline.build.local import run_local
from pipeline.demo.photographs import collect
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import load_recipe
from pipeline.scan.source import Inputs
from tests.browser import Browser, find_chromium

RECIPE = """
name: edges_and_lines
image: {resolution: 256}
detectors:
  - {detector: canny, low: [50, 150], gap: [50, 150]}
  - {detector: lsd}
"""
COMMAND = """
import atexit, re
from pathlib import Path
from pipeline.commands.cli import main
peak = lambda: re.search(r"VmHWM:\\s+([0-9]+)", Path("/proc/self/status").read_text())[1]
atexit.register(lambda: print(peak()))
main()
"""
VIEWS = ((1100, False, "body"), (1100, True, "#near"), (390, False, "#captions"))
NOUNS = [
    "cat", "dog", "bicycle", "train", "kitchen", "harbour", "street", "child", "woman",
    "man", "boat", "horse", "table", "cup",
]  # fmt: skip
WORDS = [
    "red", "old", "small", "wooden", "bright", "quiet", "crowded", "empty", "green",
    "blue", "large", "wet", "snowy",
]  # fmt: skip
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
    lost = rejects(real, round(rows * 0.2), draw)
    source = lost.append_column("rank", pa.nulls(lost.num_rows, pa.int64()))
    write(out / layout.SOURCE, conform(source, tables.SOURCE))
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
            f'{{"canny":{{"coverage":{a:.6f},"high":{h},"low":{n}}},'
            f'"lsd":{{"coverage":{b:.6f},"lines":{k}}}}}'
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


def rejects(real: Dataset, rows: int, draw: np.random.Generator) -> pa.Table:
    places = tables.read_table(real.path(layout.PLAN), ["uri", "sha256", "width", "height"])
    where: list[dict[str, object]] = places.to_pylist()
    parts = []
    total = sum(share for share, _ in RULES.values())
    for status, (share, measured) in RULES.items():
        for _ in range(round(rows * share / total)):
            record = {**where[draw.integers(len(where))], "status": status}
            if measured is not None:
                threshold, least, most = measured
                record |= {"threshold": threshold, "value": float(draw.uniform(least, most))}
            if status == "rejected:near_duplicate":
                record["against"] = record["sha256"]
            parts.append(record)
    return pa.Table.from_pylist(parts, schema=tables.REJECTS)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    missing = [name for name in schema.names if name not in table.schema.names]
    for name in missing:
        table = table.append_column(name, pa.nulls(len(table), schema.field(name).type))
    return table.select(schema.names).cast(schema)


def write(path: Path, table: pa.Table) -> None:
    storage.write_atomic(str(path), tables.to_parquet(table))


def measure(name: str, dataset: Dataset, folder: Path) -> Path:
    """Write the report as the command line does, in a process of its own, and load it."""
    page = folder / f"{name}.html"
    command = [sys.executable, "-c", COMMAND, "report", dataset.uri, "--out", str(page)]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = time.perf_counter() - start, int(done.stdout.split()[-1]) / 1024
    line = f"{name:<16}{seconds:8.1f} s {page.stat().st_size / 2**20:8.2f} MiB {peak:7.0f} MiB"
    if find_chromium() is None:
        print(f"{line}  no browser here")
        return page
    with Browser() as browser:
        loads = sorted(browser.open(page, width=1200) for _ in range(5))
        phone = sorted(browser.open(page, width=390) for _ in range(5))
        wide = browser.evaluate("document.documentElement.scrollWidth")
    print(f"{line} {loads[2]:7.2f} s {phone[2]:10.2f} s, {wide} px of 390")
    return page


def photograph(page: Path, picture: Path) -> None:
    """Set three views of a page side by side: light, dark further down, and a phone."""
    with Browser() as browser:
        shots = []
        for width, dark, place in VIEWS:
            browser.open(page, width=width, height=1400, dark=dark)
            browser.evaluate(
                f"document.querySelector('{place}').scrollIntoView({{behavior: 'instant'}})"
            )
            shots.append(Image.open(io.BytesIO(browser.screenshot())))
    sheet = Image.new("RGB", (sum(one.width + 20 for one in shots) - 20, 1400), "grey")
    left = 0
    for shot in shots:
        sheet.paste(shot, (left, 0))
        left += shot.width + 20
    sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.LANCZOS).save(
        picture, quality=78
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[50_000])
    parser.add_argument("--picture", type=Path, help="JPEG of the last page, to look at")
    options = parser.parse_args()
    print(f"{'dataset':<16} written in         size peak memory    loads   on a phone, its width")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        real = build_real(folder)
        page = measure("demo", real, folder)
        for rows in options.rows:
            made = write_synthetic(real, folder / str(rows), rows)
            page = measure(f"synthetic-{rows // 1000}k", made, folder)
        if options.picture is not None:
            photograph(page, options.picture)


if __name__ == "__main__":
    main()
