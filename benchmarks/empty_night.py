"""What a night costs when nothing came: seconds, memory and bytes read, from a tree and from S3.

    python benchmarks/empty_night.py [--rows 1000000] [--scratch FOLDER]

The tree's pictures are real and are scanned; the commits of their units are made up, as no step of
an empty night reads a shard. The S3 server is a listing alone, in a process of its own: it speaks
ListObjectsV2 with 1,000 names a page, and counts what it sends. What the scan of the tree found is
carried over to it, so that its objects need not be read first.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from planning import Watch, make_commits  # beside this file; it takes benchmarks/ off the path

# isort: split
import numpy as np
import pyarrow.compute as pc
from PIL import Image

from catalog.dataset.dataset import Dataset
from catalog.source.listing import list_parts
from pipeline.build.build import prepare
from pipeline.build.local import run_local
from pipeline.recipe.recipe import load_recipe
from pipeline.retrain.journal import Outcome
from pipeline.retrain.night import Means, run_night
from pipeline.retrain.nightly import Nightly
from pipeline.scan.chunks import name_parts, scan_here
from pipeline.scan.kept import keep_found, read_found
from pipeline.scan.scan import Found
from pipeline.scan.source import Inputs

IN_A_FOLDER = 1_000
PAGE = 1_000
SETS = ("samples_per_unit=1000", "captions.captioner=sidecar", "rules.min_side=1")
BUCKET = "s3://crawl/tree"
WHEN = "2026-01-02T03:04:05.000Z"


def name_of(number: int) -> str:
    return f"{number // IN_A_FOLDER:04d}/{number % IN_A_FOLDER:04d}.png"


def config_of(scratch: Path, images: str) -> Nightly:
    return Nightly.model_validate(
        {"folder": str(scratch / "nightly"), "recipe": "canny", "set": SETS, "images": [images]}
    )


def dataset_of(scratch: Path) -> str:
    recipe = load_recipe("canny", SETS)
    name = f"{recipe.name}-{recipe.fingerprint[:8]}"
    return config_of(scratch, "x").path("datasets", name)


def make_tree(scratch: Path, rows: int) -> None:
    """Write pictures of 8 x 8."""
    draw = np.random.default_rng(0)
    for number in range(rows):
        path = scratch / "tree" / name_of(number)
        if number % IN_A_FOLDER == 0:
            path.parent.mkdir(parents=True)
        pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, compress_level=1)


def scan_and_plan(scratch: Path, rows: int) -> None:
    """Read every picture, and freeze the plan."""
    inputs = Inputs(images=[str(scratch / "tree")])
    prepare(load_recipe("canny", SETS), dataset_of(scratch), inputs, Watch(), scan_here)


def commit_all(scratch: Path, rows: int) -> None:
    """Commit every unit, without its shard."""
    (scratch / "dataset").symlink_to(dataset_of(scratch))
    make_commits(scratch, rows, len(Dataset.open(dataset_of(scratch)).unit_ids))


def night(scratch: Path, images: str, outcome: Outcome) -> None:
    config = config_of(scratch, images)
    means = Means(executor=run_local, scanner=scan_here, observer=Watch(), trainer=None)
    recipe = load_recipe(config.recipe, config.overrides)
    ended = run_night(config, recipe, f"at-{time.time():.0f}", means, owner="benchmark")
    assert ended.outcome == outcome, ended


def first_night(scratch: Path, rows: int) -> None:
    """Fold, take a snapshot, promote."""
    night(scratch, str(scratch / "tree"), Outcome.PROMOTED)


def empty_tree(scratch: Path, rows: int) -> None:
    """List the tree, and find that nothing is new."""
    night(scratch, str(scratch / "tree"), Outcome.NOTHING_NEW)


def carry_over(scratch: Path, rows: int) -> None:
    """Say of the objects what the scan found of the files."""
    dataset, found = dataset_of(scratch), read_found(dataset_of(scratch))
    assert found is not None
    moved = found.rows.sort_by("uri")
    listed = list_parts([BUCKET]).table.sort_by("uri")
    assert listed.num_rows == moved.num_rows == rows
    for name, values in (("uri", listed["uri"]), ("part", name_parts(listed))):
        moved = moved.set_column(moved.schema.get_field_index(name), name, values)
    assert pc.count_distinct(moved["uri"]).as_py() == rows
    keep_found(dataset, Found(rows=moved, passed={}, form=found.form))


def moved_night(scratch: Path, rows: int) -> None:
    """See that the same pictures lie elsewhere."""
    night(scratch, BUCKET, Outcome.NOTHING_NEW)


empty_bucket = moved_night


class Listing(BaseHTTPRequestHandler):
    """A bucket that can be listed, and tells at /sent how much it has sent."""

    rows = 0
    requests = 0
    sent = 0

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        if split.path == "/sent":
            self._answer(json.dumps([Listing.requests, Listing.sent]).encode())
            return
        asked = parse_qs(split.query)
        if "list-type" not in asked:
            self.send_error(404)
            return
        start = int(asked.get("continuation-token", ["0"])[0])
        page = self._page(start, int(asked.get("max-keys", [str(PAGE)])[0]))
        Listing.requests += 1
        Listing.sent += len(page)
        self._answer(page)

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None: ...

    def _page(self, start: int, most: int) -> bytes:
        end = min(start + most, self.rows)
        more = end < self.rows
        objects = "".join(
            f"<Contents><Key>tree/{name_of(at)}</Key><LastModified>{WHEN}</LastModified>"
            f'<ETag>"{at:032x}"</ETag><Size>250</Size><StorageClass>STANDARD</StorageClass>'
            "</Contents>"
            for at in range(start, end)
        )
        token = f"<NextContinuationToken>{end}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>'
            '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>crawl</Name><Prefix>tree/</Prefix><KeyCount>{end - start}</KeyCount>"
            f"<MaxKeys>{most}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{token}{objects}</ListBucketResult>"
        ).encode()

    def _answer(self, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


STEPS: dict[str, Callable[[Path, int], None]] = {
    "(make the tree)": make_tree,
    "scan all and plan": scan_and_plan,
    "(make commits)": commit_all,
    "first night: fold, snapshot, promote": first_night,
    "empty night over the tree": empty_tree,
    "(carry over to S3)": carry_over,
    "night after the move to S3": moved_night,
    "empty night over S3": empty_bucket,
}


def run_step(name: str, options: argparse.Namespace, server: str) -> dict[str, float]:
    """Run one step in a process of its own; return its seconds, peak MiB and MiB read."""
    line = [sys.executable, __file__, "--step", name, "--scratch", str(options.scratch)]
    line += ["--rows", str(options.rows)]
    secrets = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
    environment = os.environ | secrets | {"AWS_ENDPOINT_URL": server}
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def do_step(options: argparse.Namespace) -> None:
    """Do one step here, and print what it cost."""

    def read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before, start = read(), time.perf_counter()
    STEPS[options.step](options.scratch, options.rows)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "read": (read() - before) / 2**20}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        Listing.rows = options.rows
        serving = ThreadingHTTPServer(("127.0.0.1", 0), Listing)
        print(serving.server_port, flush=True)
        serving.serve_forever()
    if options.step:
        do_step(options)
        return
    line = [sys.executable, __file__, "--serve", "--rows", str(options.rows)]
    with (
        tempfile.TemporaryDirectory(dir=options.scratch) as scratch,
        subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server,
    ):
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        options.scratch = Path(scratch)
        print(f"{options.rows:,} source rows")
        try:
            for name in STEPS:
                print(line_of(name, options, url), flush=True)
        finally:
            server.kill()


def line_of(name: str, options: argparse.Namespace, url: str) -> str:
    """Run a step and say what it cost, with what the S3 server was asked and sent meanwhile."""
    before = sent_by(url)
    found = run_step(name, options, url)
    requests, sent = np.subtract(sent_by(url), before)
    line = f"{name:37} {found['seconds']:7.1f} s  peak {found['peak']:6,.0f} MiB"
    line += f"  read {found['read']:7,.1f} MiB"
    if requests:
        line += f"  listed {requests:,} pages, {sent / 2**20:,.0f} MiB"
    return line


def sent_by(url: str) -> list[int]:
    from urllib.request import urlopen

    counted: list[int] = json.loads(urlopen(f"{url}/sent").read())
    return counted


if __name__ == "__main__":
    main()
