"""Commands that make and read datasets."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from pydantic import ValidationError
from rich.markup import escape

from captioning.sidecar import clean
from catalog import storage, tables
from catalog.commits import SHARDS
from catalog.dataset import Dataset
from catalog.ranking import Policy, format_size, parse_size
from pipeline import console
from pipeline.console import BuildView, err, out
from pipeline.errors import Exit, UsageError, in_flags
from pipeline.execution import Execution

app = typer.Typer()

Images = Annotated[
    list[str] | None,
    typer.Option("--images", metavar="URI...", help="Folders, .tar or .parquet files, images."),
]
MoreImages = Annotated[list[str] | None, typer.Argument(metavar="[URI]...", show_default=False)]
Include = Annotated[
    list[str] | None, typer.Option(help="Glob below the folder; one must match. Repeatable.")
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="Glob below the folder; none may match. Repeatable.")
]
RecipeName = Annotated[str, typer.Argument(help="A recipe's YAML file, or a shipped one: canny.")]
LabelsRoot = Annotated[
    str | None,
    typer.Option("--labels", metavar="URI", help="Ground truth, in a tree like the images'."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a field: detectors.0.low=80."),
]
Device = Annotated[str, typer.Option(help="Where networks run: cpu or cuda.")]
NetworkThreads = Annotated[int, typer.Option(help="Threads inside a network on the CPU.")]
SourceTable = Annotated[str | None, typer.Option(help="A source.parquet that `scan` wrote.")]
DatasetUri = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's folder or URI.")]
SubsetName = Annotated[str | None, typer.Option(help="A subset, for example 1k; default all.")]


@app.command()
def scan(
    images: Images = None,
    more: MoreImages = None,
    out_: Annotated[str, typer.Option("--out", help="The parquet to write.")] = "source.parquet",
    include: Include = None,
    exclude: Exclude = None,
    labels: LabelsRoot = None,
    label_suffix: Annotated[
        str | None, typer.Option(help="Of ground truth: .png or _normal.npy in the image's place.")
    ] = None,
) -> None:
    """List, hash and rank images: one row an image, best resolution first."""
    from catalog.labels import Labels
    from pipeline.scan import scan as run

    if labels is not None and label_suffix is None:
        raise UsageError("--labels needs --label-suffix, for example .png")
    with BuildView() as view:
        table, metadata = run(
            _images(images, more),
            include=include or (),
            exclude=exclude or (),
            labels=Labels(suffix=label_suffix, root=labels) if label_suffix else None,
            progress=view.scanning(),
        )
    storage.write_atomic(out_, tables.to_parquet(table, metadata))
    for status, count in sorted(Counter(table["status"].to_pylist()).items()):
        out.print(f"{count:>9,}  {escape(status)}")
    ignored = metadata["ignored"]
    if isinstance(ignored, dict) and ignored:
        passed = ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.items()))
        out.print(f"passed over, no images by name: {escape(passed)}")
    out.print(f"written: {escape(out_)}")


@app.command()
def plan(
    recipe: RecipeName,
    more: MoreImages = None,
    out_: Annotated[
        str | None, typer.Option("--out", help="The dataset's folder; not needed to look.")
    ] = None,
    images: Images = None,
    source: SourceTable = None,
    include: Include = None,
    exclude: Exclude = None,
    labels: LabelsRoot = None,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option(help="Show the plan and write nothing.")] = False,
) -> None:
    """Freeze which images make which units; with --dry-run only show it."""
    from pipeline.build import Inputs, load_source, prepare
    from pipeline.plan import judge, summarize
    from pipeline.recipe import load_recipe

    made = load_recipe(recipe, overrides or ())
    found = [*(images or ()), *(more or ())]
    inputs = Inputs(
        images=found,
        source=source,
        include=include or (),
        exclude=exclude or (),
        labels=labels,
    )
    if not found and source is None:
        raise UsageError("plan needs --images URI... or --source source.parquet")
    if not dry_run and out_ is None:
        raise UsageError("plan needs --out DATASET to write to, or --dry-run to look only")
    with BuildView() as view:
        if dry_run or out_ is None:
            table, _ = load_source(made, inputs, view)
            console.show_plan(summarize(judge(table, made), made))
            return
        dataset = prepare(made, out_, inputs, view)
    out.print(f"planned: {len(dataset.unit_ids):,} units in {escape(out_)}")


@app.command()
def build(
    recipe: RecipeName,
    out_: Annotated[
        str, typer.Option("--out", metavar="DATASET", help="Folder or URI to build in.")
    ],
    more: MoreImages = None,
    images: Images = None,
    source: SourceTable = None,
    include: Include = None,
    exclude: Exclude = None,
    labels: LabelsRoot = None,
    overrides: Overrides = None,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray.")] = False,
    actors: Annotated[
        int | None, typer.Option(help="Ray actors at most; default one a CPU.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads a worker; default one a CPU.")
    ] = None,
    device: Device = "cpu",
    gpus_per_actor: Annotated[
        float, typer.Option(help="GPUs, or a share of one, for each actor on cuda.")
    ] = 1.0,
    network_threads: NetworkThreads = 1,
    max_failed_share: Annotated[
        float, typer.Option(help="Share of failed images above which the exit code is 3.")
    ] = 0.01,
) -> None:
    """Scan, plan, annotate and commit; the same command again resumes.

    On Ray by default: on the cluster of RAY_ADDRESS, else on a local instance that starts by
    itself. Both ways, and any number of actors and threads, give the same bytes; another device,
    or another number of network threads, may move a network's last bits, and each commit says so.
    """
    from pipeline.build import Inputs, run_local
    from pipeline.build import build as run
    from pipeline.recipe import load_recipe

    made = load_recipe(recipe, overrides or ())
    given = {name: value for name, value in locals().items() if name in Execution.model_fields}
    execution = _execution({name: value for name, value in given.items() if value is not None})
    inputs = Inputs(
        images=[*(images or ()), *(more or ())],
        source=source,
        include=include or (),
        exclude=exclude or (),
        labels=labels,
    )
    if local:
        executor = run_local
    else:
        from pipeline.ray_executor import run_on_ray as executor
    with BuildView() as view:
        result = run(made, out_, inputs, execution, executor=executor, observer=view)
    if not result.changed:
        out.print(f"nothing to do: {escape(out_)} is complete")
    console.show_status(out_, result.status)
    if result.failed_share > execution.max_failed_share:
        err.print(f"{result.failed_share:.1%} of the images failed; see {out_}/rejects.parquet")
        raise typer.Exit(Exit.FAILURES)


@app.command()
def status(dataset: DatasetUri) -> None:
    """Count units, samples and rejects, from committed files alone."""
    opened = Dataset.open(dataset)
    console.show_status(dataset, opened.status())
    out.print(f"subsets: {', '.join(opened.subsets()) or 'none yet'}")


@app.command()
def verify(
    dataset: DatasetUri,
    rebuild: Annotated[int, typer.Option(help="Annotate this many units again and compare.")] = 0,
    device: Device = "cpu",
    network_threads: NetworkThreads = 1,
    against: Annotated[
        str | None, typer.Option(help="Another dataset that must be byte-identical, logs apart.")
    ] = None,
) -> None:
    """Re-hash every committed file and sample."""
    from catalog.verify import differences
    from catalog.verify import verify as run
    from pipeline.verify import rebuild_sampled

    opened = Dataset.open(dataset)
    faults = run(opened)
    if rebuild:
        execution = _execution({"device": device, "network_threads": network_threads})
        faults += rebuild_sampled(opened, rebuild, execution)
    if against is not None:
        faults += differences(dataset, against)
    for fault in faults:
        err.print(escape(fault))
    if faults:
        raise typer.Exit(Exit.FAILED)
    extra = f", {min(rebuild, len(opened.unit_ids))} units rebuilt" if rebuild else ""
    extra += f", byte-identical to {against}" if against else ""
    out.print(
        f"good: {len(opened.view()):,} samples in {len(opened.unit_ids):,} units{escape(extra)}"
    )


@app.command("ls")
def list_samples(
    dataset: DatasetUri,
    subset: SubsetName = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to show.")] = 20,
) -> None:
    """Show the first samples in rank order: rank, key, size as found, caption."""
    view = Dataset.open(dataset).view(subset)
    for row in view.table.slice(0, limit).to_pylist():
        size = f"{row['source_width']}x{row['source_height']}"
        out.print(f"{row['rank']:>9,}  {row['key']}  {size:>11}  {escape(clean(row['caption']))}")
    out.print(f"{min(limit, len(view)):,} of {len(view):,} samples; shards: {dataset}/{SHARDS}")


@app.command()
def subset(
    dataset: DatasetUri,
    sizes: Annotated[str, typer.Option(help="For example 1k,10k,50k,500k.")],
    policy: Annotated[
        str, typer.Option(help="top: best resolutions; stratified: from all resolutions.")
    ] = "top",
    seed: Annotated[int, typer.Option(min=0, help="Of the stratified draw.")] = 0,
) -> None:
    """Write nested subsets as views of the manifest; no sample is copied."""
    opened = Dataset.open(dataset)
    chosen = _policy(policy)
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
    out_: Annotated[Path, typer.Option("--out", help="A new local folder for the tars.")],
    subset: SubsetName = None,
    samples_per_tar: Annotated[int, typer.Option(min=1)] = 1000,
) -> None:
    """Copy a view into plain WebDataset tars."""
    from catalog.materialize import materialize as run

    view = Dataset.open(dataset).view(subset)
    for written in run(view, out_, samples_per_tar=samples_per_tar):
        err.print(f"{written:,} of {len(view):,} samples")
    out.print(f"written: {len(view):,} samples to {escape(str(out_))}")


def _images(images: Sequence[str] | None, more: Sequence[str] | None) -> list[str]:
    found = [*(images or ()), *(more or ())]
    if not found:
        raise UsageError("say where the images are: --images URI...")
    return found


def _execution(fields: dict[str, Any]) -> Execution:
    try:
        return Execution.model_validate(fields)
    except ValidationError as error:
        raise UsageError(in_flags(error)) from error


def _policy(name: str) -> Policy:
    known: tuple[Policy, ...] = get_args(Policy)
    for policy in known:
        if policy == name:
            return policy
    raise UsageError(f"--policy {name!r} is unknown; expected one of {', '.join(known)}")
