"""Commands for looking at a dataset, handing it on, and taking samples out of it."""

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from catalog import storage
from catalog.dataset import tombstones
from catalog.dataset.dataset import Dataset
from catalog.errors import CatalogError
from pipeline.commands.options import DatasetUri
from pipeline.errors import UsageError
from pipeline.figures import human_bytes
from pipeline.terminal.console import out

app = typer.Typer()


@app.command()
def report(
    dataset: DatasetUri,
    out_: Annotated[Path, typer.Option("--out", help="The HTML file to write.")] = Path(
        "report.html"
    ),
    samples: Annotated[
        int, typer.Option(min=0, max=100, help="On a contact sheet; 0 draws no pictures.")
    ] = 12,
    sources: Annotated[
        bool,
        typer.Option(help="Show rejected images, read where the dataset says that they came from."),
    ] = True,
) -> None:
    """Write one self-contained HTML file to look at: counts, rejects, distributions, pictures."""
    from pipeline.report.page import write_page

    start = time.perf_counter()
    data = write_page(Dataset.open(dataset), samples=samples, sources=sources).encode()
    storage.write_atomic(str(out_), data)
    seconds = time.perf_counter() - start
    out.print(f"written: {escape(str(out_))}, {human_bytes(len(data))}, in {seconds:.1f} s")


@app.command()
def remove(
    dataset: DatasetUri,
    keys: Annotated[
        Path, typer.Option("--keys", help="A text file: keys or images' sha256s, one a line.")
    ],
) -> None:
    """Take samples down: from now on they are in no view, subset or training run.

    Their bytes stay in the shards until **compact**.
    """
    opened = Dataset.open(dataset)
    named = _read_keys(keys)
    before = opened.sample_count()
    fresh = tombstones.bury(dataset, named)
    left = opened.sample_count()
    noted = "" if fresh else "; these very keys were removed before"
    out.print(
        f"removed: {before - left:,} samples of {len(named):,} keys named, {left:,} left{noted}"
    )
    out.print(f"their bytes are still in the shards; to delete them: compact {escape(dataset)}")


@app.command()
def compact(dataset: DatasetUri) -> None:
    """Rewrite the shards without what was removed, or nothing shows any more, and verify them."""
    from catalog.dataset.compact import compact as run
    from catalog.publish.card import README

    opened = Dataset.open(dataset)
    done = run(opened)
    if not done.units and not done.deleted:
        out.print("nothing to do: no shard holds what was removed, or what nothing shows")
        return
    out.print(f"rewritten and verified: {done.units:,} units; {done.deleted:,} old files deleted")
    if storage.exists(opened.path(README)):
        out.print(f"the card names files that are gone: card {escape(dataset)}")


def _read_keys(path: Path) -> set[str]:
    try:
        keys = tombstones.parse_keys(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"--keys {path} does not exist") from None
    except (CatalogError, UnicodeDecodeError) as error:
        raise UsageError(f"--keys {path}: {error}") from error
    if not keys:
        raise UsageError(f"--keys {path} names nothing")
    return keys


@app.command()
def card(dataset: DatasetUri) -> None:
    """Write README.md and croissant.json, for `datasets.load_dataset` and a hub."""
    from catalog.publish.card import write_card

    made = write_card(Dataset.open(dataset))
    for config in made.configs:
        out.print(f"{escape(config.name):>16}  {config.samples:>9,} samples")
    if made.copied:
        out.print(f"copied for subsets that end inside a shard: {made.copied:,} samples")
    out.print(f"written: {escape(dataset)}/README.md, croissant.json; the licence is left to you")
