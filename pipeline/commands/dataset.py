"""Commands that read datasets, and cut views from them."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.markup import escape

from captioning.clean import clean
from catalog.dataset.commits import SHARDS
from catalog.dataset.dataset import Dataset
from catalog.source.ranking import Policy, format_size, parse_size
from pipeline.commands.options import (
    LARGEST_SEED,
    DatasetUri,
    Device,
    Json,
    NetworkThreads,
    SubsetName,
    check_here,
    execution_of,
    one_of,
)
from pipeline.errors import Exit, UsageError
from pipeline.terminal import console
from pipeline.terminal.console import err, out

app = typer.Typer()


@app.command()
def status(dataset: DatasetUri, json: Json = False) -> None:
    """Count units, samples and rejects, from committed files alone."""
    opened = Dataset.open(dataset)
    if json:
        metadata = opened.source_metadata()
        console.show_json(
            {
                **asdict(opened.status()),
                "fingerprint": opened.fingerprint,
                "captions": metadata.get("captions"),
                "passed_over": metadata.get("ignored", {}),
                "subsets": opened.subsets(),
                "snapshots": opened.snapshots(),
            }
        )
        return
    console.show_status(dataset, opened.status())
    console.show_source(opened.source_metadata())
    out.print(f"subsets: {', '.join(opened.subsets()) or 'none yet'}")


@app.command()
def verify(
    dataset: DatasetUri,
    quick: Annotated[
        bool, typer.Option("--quick", help="Sizes and tables alone; reads no shard.")
    ] = False,
    rebuild: Annotated[int, typer.Option(help="Annotate this many units again and compare.")] = 0,
    device: Device = "cpu",
    network_threads: NetworkThreads = 1,
    against: Annotated[
        str | None, typer.Option(help="Another dataset that must be byte-identical, logs apart.")
    ] = None,
    json: Json = False,
) -> None:
    """Re-hash every committed file and sample."""
    from catalog.dataset.verify import differences
    from catalog.dataset.verify import verify as run
    from pipeline.ledger.remake import rebuild_sampled

    opened = Dataset.open(dataset)
    faults = run(opened, quick=quick)
    if rebuild:
        check_here(device)
        execution = execution_of({"device": device, "network_threads": network_threads})
        faults += rebuild_sampled(opened, rebuild, execution)
    if against is not None:
        faults += differences(dataset, against)
    if json:
        counts = {"samples": opened.sample_count() if not faults else None}
        units = len(opened.unit_ids)
        console.show_json({"good": not faults, "faults": faults, "units": units, **counts})
    else:
        for fault in faults:
            err.print(escape(fault))
    if faults:
        raise typer.Exit(Exit.FAILED)
    if json:
        return
    extra = f", {min(rebuild, len(opened.unit_ids))} units rebuilt" if rebuild else ""
    extra += ", by size: no bytes were read" if quick else ""
    extra += f", byte-identical to {against}" if against else ""
    out.print(
        f"good: {opened.sample_count():,} samples in {len(opened.unit_ids):,} units{escape(extra)}"
    )


@app.command("ls")
def list_samples(
    dataset: DatasetUri,
    subset: SubsetName = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 20,
    json: Json = False,
) -> None:
    """Show the first samples in rank order: rank, key, size as found, caption."""
    opened = Dataset.open(dataset)
    if subset is None:
        first, count = opened.first(limit), opened.sample_count()
    else:
        chosen = opened.view(subset)
        first, count = chosen.table.slice(0, limit), len(chosen)
    if json:
        names = ["rank", "key", "source_width", "source_height", "caption", "shard"]
        console.show_json({"samples": count, "rows": first.select(names).to_pylist()})
        return
    for row in first.to_pylist():
        size = f"{row['source_width']}x{row['source_height']}"
        out.print(f"{row['rank']:>9,}  {row['key']}  {size:>11}  {escape(clean(row['caption']))}")
    out.print(f"{min(limit, count):,} of {count:,} samples; shards: {dataset}/{SHARDS}")


@app.command()
def subset(
    dataset: DatasetUri,
    sizes: Annotated[str, typer.Option(help="For example 1k,10k,50k,500k.")],
    policy: Annotated[
        str,
        typer.Option(help="top: the first by the ranking; stratified: from all of it."),
    ] = "top",
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of the stratified draw.")] = 0,
) -> None:
    """Write nested subsets as views of the manifest; no sample is copied."""
    opened = Dataset.open(dataset)
    chosen: Policy = one_of("--policy", policy, get_args(Policy))
    counts = sorted({parse_size(size) for size in sizes.split(",")})
    total = opened.sample_count()
    for count in counts:
        if count > total:
            err.print(f"{format_size(count)}: not written, the dataset has {total:,} samples")
            continue
        view = opened.write_subset(count, policy=chosen, seed=seed)
        out.print(f"{view.name}: {len(view):,} samples")
    if counts[0] > total:
        raise typer.Exit(Exit.FAILED)


@app.command()
def materialize(
    dataset: DatasetUri,
    out_: Annotated[Path, typer.Option("--out", help="A new local folder.")],
    subset: SubsetName = None,
    layout: Annotated[
        str,
        typer.Option(
            help="tars: WebDataset's; folders: for trainers that read files; hf: parquet files "
            "for load_dataset and diffusers' scripts; mds: for MosaicML's streaming."
        ),
    ] = "tars",
    condition: Annotated[
        str | None, typer.Option(help="Of folders and hf: the map that is the conditioning_image.")
    ] = None,
    people: Annotated[
        str | None,
        typer.Option(help="Of folders: poses as JSON, too, openpose (a file each) or coco (one)."),
    ] = None,
    samples_per_tar: Annotated[int, typer.Option(min=1, help="Or file of another layout.")] = 1000,
) -> None:
    """Copy a view into plain WebDataset tars, or into what other trainers read."""
    from catalog.dataset.materialize import materialize as run
    from catalog.publish.folders import write_folders
    from catalog.publish.hugging_face import write_parquet
    from catalog.publish.mosaic import write_mds
    from pipeline.export.people import FORMATS, People, require_people

    view = Dataset.open(dataset).view(subset)
    chosen = one_of("--layout", layout, ("tars", "folders", "hf", "mds"))
    form = None if people is None else one_of("--people", people, FORMATS)
    if form is not None and chosen != "folders":
        raise UsageError("--people goes with --layout folders; the others hold each sample's json")
    poses = None if form is None else People(out_, form)
    if poses is not None:
        require_people(view)
    if chosen == "folders":
        beside = None if poses is None else poses.add
        steps = write_folders(view, out_, condition=condition, beside=beside)
    elif chosen == "hf":
        steps = write_parquet(view, out_, condition=condition, samples_per_file=samples_per_tar)
    elif condition is not None:
        raise UsageError(f"--condition goes with --layout folders or hf; {chosen} hold all of them")
    elif chosen == "mds":
        steps = write_mds(view, out_, samples_per_file=samples_per_tar)
    else:
        steps = run(view, out_, samples_per_tar=samples_per_tar)
    for written in steps:
        err.print(f"{written:,} of {len(view):,} samples")
    if poses is not None:
        poses.finish()
    out.print(f"written: {len(view):,} samples to {escape(str(out_))}")
