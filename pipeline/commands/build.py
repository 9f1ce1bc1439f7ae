"""Commands that make datasets: scan, plan, build."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.markup import escape

from catalog import tables
from catalog.dataset.dataset import Dataset
from pipeline.commands.options import (
    Actors,
    CaptionCache,
    CpusPerActor,
    Device,
    DeviceOfRecipe,
    GpusPerActor,
    Json,
    Local,
    LogFormatName,
    MaxFailedShare,
    MaxFailedShareOfAUnit,
    Overrides,
    Threads,
    ThreadsOfNetworks,
    execution_of,
    is_elsewhere,
    one_of,
    unit_executor,
)
from pipeline.errors import Exit, UsageError
from pipeline.recipe.execution import Execution
from pipeline.terminal import console
from pipeline.terminal.build_view import BuildView, LogFormat
from pipeline.terminal.console import err, out

if TYPE_CHECKING:
    from pipeline.recipe.recipe import Recipe

app = typer.Typer()

Images = Annotated[
    list[str] | None,
    typer.Option("--images", metavar="URI...", help="Folders, .tar, .parquet, images; globs."),
]
MoreImages = Annotated[list[str] | None, typer.Argument(metavar="[URI]...", show_default=False)]
Include = Annotated[
    list[str] | None, typer.Option(help="Glob below the folder; one must match. Repeatable.")
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="Glob below the folder; none may match. Repeatable.")
]
AllowPaths = Annotated[
    list[str] | None,
    typer.Option(help="Folder below which paths in a .parquet are followed, too. Repeatable."),
]
RecipeName = Annotated[str, typer.Argument(help="A recipe's YAML file, or a shipped one: canny.")]
LabelsRoot = Annotated[
    str | None,
    typer.Option("--labels", metavar="URI", help="Ground truth, in a tree like the images'."),
]
SourceTable = Annotated[str | None, typer.Option(help="A source.parquet that `scan` wrote.")]
FromDataset = Annotated[
    str | None,
    typer.Option("--from", metavar="DATASET", help="A dataset whose images and captions to take."),
]


@app.command()
def scan(
    images: Images = None,
    more: MoreImages = None,
    out_: Annotated[str, typer.Option("--out", help="The parquet to write.")] = "source.parquet",
    include: Include = None,
    exclude: Exclude = None,
    labels: LabelsRoot = None,
    allow_paths: AllowPaths = None,
    label_suffix: Annotated[
        str | None, typer.Option(help="Of ground truth: .png or _normal.npy in the image's place.")
    ] = None,
    perceptual: Annotated[
        bool, typer.Option("--perceptual", help="Decode for hashes that find near duplicates.")
    ] = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="On Ray: the cluster of RAY_ADDRESS, or one of its own.")
    ] = False,
) -> None:
    """List, hash and rank images: one row an image, best resolution first.

    Killed, the same command goes on from what lies in OUT.scan/ until it is done.
    """
    from catalog.source.labels import Labels
    from pipeline.scan.chunks import forget
    from pipeline.scan.scan import count_captions
    from pipeline.scan.scan import scan as run

    if ray:
        from pipeline.scan.on_ray import scan_on_ray as executor
    else:
        from pipeline.scan.chunks import scan_here as executor

    if labels is not None and label_suffix is None:
        raise UsageError("--labels needs --label-suffix, for example .png")
    pieces = f"{out_}.scan"
    with BuildView() as view:
        found = run(
            _images(images, more),
            include=include or (),
            exclude=exclude or (),
            labels=Labels(suffix=label_suffix, root=labels) if label_suffix else None,
            allowed=allow_paths or (),
            perceptual=perceptual,
            folder=pieces,
            executor=executor,
            progress=view.scanning(),
        )
    table, metadata = found.table, found.metadata
    tables.write_parquet(out_, table.schema, tables.cut(table), metadata)
    forget(pieces)
    for status, count in tables.count_values(table["status"]).items():
        out.print(f"{count:>9,}  {escape(status)}")
    console.show_source({**metadata, "captions": count_captions(table)})
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
    from_: FromDataset = None,
    include: Include = None,
    exclude: Exclude = None,
    labels: LabelsRoot = None,
    allow_paths: AllowPaths = None,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option(help="Show the plan and write nothing.")] = False,
    device: Device = "cpu",
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Of one GPU, or CPU core: --dry-run adds it up.")
    ] = None,
    json: Json = False,
) -> None:
    """Freeze which images make which units; with --dry-run only show it, and what it would cost."""
    from pipeline.build.build import prepare
    from pipeline.plan.cost import estimate, read_rates
    from pipeline.plan.judge import judge, summarize
    from pipeline.scan.scan import count_captions
    from pipeline.scan.source import Inputs, load_source

    made = _recipe_for(recipe, overrides or (), out_)
    found = [*(images or ()), *(more or ())]
    inputs = Inputs(
        images=found,
        source=source,
        dataset=from_,
        include=include or (),
        exclude=exclude or (),
        labels=labels,
        allowed=allow_paths or (),
    )
    if not found and source is None and from_ is None:
        raise UsageError("plan needs --images URI..., --source source.parquet or --from DATASET")
    if not dry_run and out_ is None:
        raise UsageError("plan needs --out DATASET to write to, or --dry-run to look only")
    execution_of({"device": device})
    with BuildView() as view:
        if dry_run or out_ is None:
            table, metadata = load_source(made, inputs, progress=view.scanning())
            judged = judge(table, made)
            summary = summarize(judged, made)
            captions = count_captions(judged)
            cost = estimate(
                summary.images,
                made,
                device,
                price_per_hour,
                read_rates(),
                texts=captions[0],
                pixels=summary.pixels,
            )
            if json:
                told = {"captions": captions, "passed_over": metadata.get("ignored", {})}
                console.show_json({**asdict(summary), **told, "estimate": asdict(cost)})
                return
            console.show_plan(summary)
            console.show_source({**metadata, "captions": captions})
            for line in cost.lines():
                out.print(line)
            return
        dataset = prepare(made, out_, inputs, view)
    if json:
        console.show_json({"units": len(dataset.unit_ids), "dataset": out_})
        return
    out.print(f"planned: {len(dataset.unit_ids):,} units in {escape(out_)}")
    console.show_source(dataset.source_metadata())


@app.command()
def build(
    recipe: RecipeName,
    out_: Annotated[
        str, typer.Option("--out", metavar="DATASET", help="Folder or URI to build in.")
    ],
    more: MoreImages = None,
    images: Images = None,
    source: SourceTable = None,
    from_: FromDataset = None,
    include: Include = None,
    exclude: Exclude = None,
    labels: LabelsRoot = None,
    allow_paths: AllowPaths = None,
    overrides: Overrides = None,
    local: Local = False,
    actors: Actors = None,
    min_actors: Annotated[int | None, typer.Option(help="Ray actors kept; default 1.")] = None,
    cpus_per_actor: CpusPerActor = None,
    gpus_per_actor: GpusPerActor = None,
    device: DeviceOfRecipe = None,
    threads: Threads = None,
    network_threads: ThreadsOfNetworks = None,
    caption_cache: CaptionCache = None,
    split_captions: Annotated[
        bool | None,
        typer.Option("--split-captions", help="On Ray: caption in actors of their own."),
    ] = None,
    wave: Annotated[
        int | None, typer.Option(help="Units that Ray schedules at a time; default 10,000.")
    ] = None,
    retries: Annotated[int | None, typer.Option(help="Of failed units; default 2.")] = None,
    max_failed_units: Annotated[
        float | None, typer.Option(help="Share of failed units that stops it; default 0.01.")
    ] = None,
    max_failed_share_of_a_unit: MaxFailedShareOfAUnit = None,
    no_progress_timeout: Annotated[
        float | None,
        typer.Option(help="On Ray: seconds without a unit's end; 0: any; default 3600 or more."),
    ] = None,
    image_timeout: Annotated[
        float | None, typer.Option(help="Seconds that an image may take; 0: any; default 300.")
    ] = None,
    reuse: Annotated[
        str | None,
        typer.Option(metavar="DATASET", help="Take maps from here; only thresholds may differ."),
    ] = None,
    append: Annotated[
        bool,
        typer.Option(
            "--append",
            help="Go on with a finished dataset: look at its source again, and at --images more.",
        ),
    ] = False,
    max_failed_share: MaxFailedShare = None,
    log_format: LogFormatName = "text",
) -> None:
    """Scan, plan, annotate and commit; the same command again resumes.

    On Ray by default: on the cluster of RAY_ADDRESS, else on a local instance that starts by
    itself. Both ways, and any number of actors and threads, give the same bytes; another device,
    or another number of network threads, may move a network's last bits, and each commit says so.
    What the flags leave open is as the recipe's execution section says.
    """
    from pipeline.build.append import append_changes
    from pipeline.build.build import build as run
    from pipeline.build.build import is_planned
    from pipeline.scan.source import Inputs

    given = {name: value for name, value in locals().items() if name in Execution.model_fields}
    made = _recipe_for(recipe, overrides or (), out_)
    asked = {name: value for name, value in given.items() if value is not None}
    execution = execution_of(made.execution.model_dump() | asked)
    inputs = Inputs(
        images=[*(images or ()), *(more or ())],
        source=source,
        dataset=from_,
        include=include or (),
        exclude=exclude or (),
        labels=labels,
        allowed=allow_paths or (),
    )
    executor = unit_executor(local, execution.device)
    if local:
        from pipeline.scan.chunks import scan_here as scanner
    else:
        from pipeline.scan.on_ray import scan_on_ray as scanner
    with BuildView(one_of("--log-format", log_format, get_args(LogFormat))) as view:
        parts: dict[str, Any] = {
            "executor": executor,
            "observer": view,
            "scanner": scanner,
            "captioner_elsewhere": is_elsewhere(local),
        }
        growth = None
        if append and is_planned(out_):
            appended = append_changes(out_, made, inputs, execution, **parts)
            growth, result = appended.growth, appended.result
        else:
            result = run(made, out_, inputs, execution, **parts)
    if growth is not None:
        out.print(f"source: {growth}")
    if not result.changed:
        out.print(f"nothing to do: {escape(out_)} is complete")
        if not append and inputs.images:
            out.print("what the source has gained or lost since its plan: build with --append")
    console.show_status(out_, result.status)
    console.show_source(Dataset.open(out_).source_metadata())
    if result.failed_share > execution.max_failed_share:
        err.print(
            f"{result.failed_share:.1%} of the images failed; see {out_}/rejects.parquet; "
            "retry-failed tries them again"
        )
        raise typer.Exit(Exit.FAILURES)


def _recipe_for(name: str, overrides: Sequence[str], dataset: str | None) -> "Recipe":
    """Load a recipe; a dataset keeps its format, and what no one chose of a shipped recipe."""
    from pipeline.plan.freeze import as_begun
    from pipeline.recipe.recipe import load_recipe, shipped_recipes

    made = load_recipe(name, overrides)
    chosen = name not in shipped_recipes() or any(one.startswith("captions") for one in overrides)
    if dataset is None:
        return made
    begun = as_begun(dataset, made, captions=not chosen)
    if begun.captions != made.captions:
        told = f"{dataset} goes on with the captions it was begun with: {begun.captions.captioner}"
        err.print(escape(told))
    return begun


def _images(images: Sequence[str] | None, more: Sequence[str] | None) -> list[str]:
    found = [*(images or ()), *(more or ())]
    if not found:
        raise UsageError("say where the images are: --images URI...")
    return found
