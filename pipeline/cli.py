"""The command line: ``controlnet-factory``, the same as ``python -m pipeline``."""

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.markup import escape

from captioning.sidecar import clean
from catalog import storage, tables
from catalog.commits import SHARDS
from catalog.dataset import Dataset
from catalog.errors import CatalogError
from catalog.ranking import Policy, format_size, parse_size
from pipeline import console
from pipeline.console import BuildView, err, out
from pipeline.errors import BuildError, Exit, UsageError
from pipeline.execution import Execution
from training.errors import TrainingError

app = typer.Typer(
    name="controlnet-factory",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Make ControlNet training sets from raw images, and train ControlNets on them.\n\n"
    "The main path: **build** a dataset, cut a **subset**, **train**, **generate**. "
    "Every command can be run again: what is done is not done twice.\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage or recipe, 3 done with too many failed images.",
)

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
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a field: detectors.0.low=80."),
]
SourceTable = Annotated[str | None, typer.Option(help="A source.parquet that `scan` wrote.")]
DatasetUri = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's folder or URI.")]
SubsetName = Annotated[str | None, typer.Option(help="A subset, for example 1k; default all.")]
Base = Annotated[
    str, typer.Option(help="Stable Diffusion: a folder in diffusers' layout, or a hub id.")
]


@app.command()
def scan(
    images: Images = None,
    more: MoreImages = None,
    out_: Annotated[str, typer.Option("--out", help="The parquet to write.")] = "source.parquet",
    include: Include = None,
    exclude: Exclude = None,
) -> None:
    """List, hash and rank images: one row an image, best resolution first."""
    from pipeline.scan import scan as run

    with BuildView() as view:
        table, metadata = run(
            _images(images, more),
            include=include or (),
            exclude=exclude or (),
            progress=view.scanning(),
        )
    storage.write_atomic(out_, tables.to_parquet(table, metadata))
    for status, count in sorted(_counts(table["status"].to_pylist()).items()):
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
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option(help="Show the plan and write nothing.")] = False,
) -> None:
    """Freeze which images make which units; with --dry-run only show it."""
    from pipeline.build import Inputs, load_source, prepare
    from pipeline.plan import judge, summarize
    from pipeline.recipe import load_recipe

    made = load_recipe(recipe, overrides or ())
    found = [*(images or ()), *(more or ())]
    inputs = Inputs(images=found, source=source, include=include or (), exclude=exclude or ())
    if not found and source is None:
        raise UsageError("plan needs --images URI... or --source source.parquet")
    if not dry_run and out_ is None:
        raise UsageError("plan needs --out DATASET to write to, or --dry-run to look only")
    with BuildView() as view:
        if dry_run or out_ is None:
            table, _ = load_source(inputs, view)
            console.show_plan(summarize(judge(table, made.rules), made))
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
    overrides: Overrides = None,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray.")] = False,
    actors: Annotated[
        int | None, typer.Option(help="Ray actors at most; default one a CPU.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads a worker; default one a CPU.")
    ] = None,
    max_failed_share: Annotated[
        float, typer.Option(help="Share of failed images above which the exit code is 3.")
    ] = 0.01,
) -> None:
    """Scan, plan, annotate and commit; the same command again resumes.

    On Ray by default: on the cluster of RAY_ADDRESS, else on a local instance that starts by
    itself. Both ways, and any number of actors and threads, give the same bytes.
    """
    from pipeline.build import Inputs, run_local
    from pipeline.build import build as run
    from pipeline.recipe import load_recipe

    made = load_recipe(recipe, overrides or ())
    options = {"actors": actors, "threads": threads, "max_failed_share": max_failed_share}
    execution = _execution({name: value for name, value in options.items() if value is not None})
    inputs = Inputs(
        images=[*(images or ()), *(more or ())],
        source=source,
        include=include or (),
        exclude=exclude or (),
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
        faults += rebuild_sampled(opened, rebuild)
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
    total = len(opened.view())
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


@app.command()
def train(
    dataset: Annotated[str, typer.Option(help="The dataset's folder or URI.")],
    base: Base,
    out_: Annotated[str, typer.Option("--out", help="The run's folder; again resumes it.")],
    condition: Annotated[str, typer.Option(help="Which of the dataset's conditions.")] = "canny",
    subset: SubsetName = None,
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 10_000,
    batch_size: Annotated[int, typer.Option(help="Samples a process and micro-step.")] = 4,
    gradient_accumulation: Annotated[int, typer.Option(help="Micro-steps an optimizer step.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="AdamW's; the paper's is 1e-5.")] = 1e-5,
    prompt_dropout: Annotated[float, typer.Option(help="Share of prompts made empty.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Of order, noise and dropout.")] = 0,
    num_workers: Annotated[int, typer.Option(help="Loader processes.")] = 0,
    mixed_precision: Annotated[str, typer.Option(help="no, fp16 or bf16.")] = "no",
    checkpoint_every: Annotated[int, typer.Option(help="Optimizer steps.")] = 1000,
    revision: Annotated[str | None, typer.Option(help="Of the base on the hub.")] = None,
    local_files_only: Annotated[bool, typer.Option(help="Never ask the hub.")] = False,
) -> None:
    """Train a ControlNet on a dataset's shards; the run's folder loads in plain diffusers."""
    from pydantic import ValidationError

    from training.config import TrainConfig

    fields = {name: value for name, value in locals().items() if name in TrainConfig.model_fields}
    try:
        config = TrainConfig(**fields, out=out_)
    except ValidationError as error:
        raise UsageError(_flags(error)) from error
    quiet_libraries()
    from training.loop import train as run

    result = run(config)
    done = f"{result.steps} steps"
    if not result.steps_done:
        out.print(f"nothing to do: {escape(out_)} has its {done}")
    else:
        speed = f"loss {result.loss:.4f}, {result.images_per_second:.2f} images/s"
        out.print(f"trained: {done} in {escape(out_)}, {speed}")


@app.command()
def generate(
    controlnet: Annotated[str, typer.Option(help="A run's folder, or one of its checkpoints.")],
    base: Base,
    image: Annotated[list[Path], typer.Option(help="A condition map. Repeatable.")],
    out_: Annotated[Path, typer.Option("--out", help="Folder for the pictures.")] = Path(
        "generated"
    ),
    prompt: Annotated[str | None, typer.Option(help="Default: the paper's default prompt.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Repeatable; one picture each.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="DDIM steps.")] = 20,
    cfg: Annotated[float, typer.Option(help="Classifier-free guidance scale.")] = 9.0,
    revision: Annotated[str | None, typer.Option(help="Of the base on the hub.")] = None,
    local_files_only: Annotated[bool, typer.Option(help="Never ask the hub.")] = False,
) -> None:
    """Sample with a trained ControlNet: PNGs and a labelled grid (DDIM, 20 steps, CFG 9.0)."""
    quiet_libraries()
    from pipeline.pictures import write_pictures
    from training.controlnet import load_base
    from training.prompts import choose_prompt

    grid = write_pictures(
        load_base(base, revision=revision, local_files_only=local_files_only),
        controlnet,
        image,
        out_,
        prompt=choose_prompt("default" if prompt is None else "user", prompt),
        seeds=seed or [0],
        steps=steps,
        guidance_scale=cfg,
    )
    out.print(f"written: {escape(str(grid))}")


@app.command()
def demo(
    out_: Annotated[Path, typer.Option("--out", help="Folder for all that it makes.")] = Path(
        "demo"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 40,
    local: Annotated[bool, typer.Option("--local", help="Without Ray.")] = False,
) -> None:
    """Walk the whole path on real photographs, in a few minutes on a laptop."""
    quiet_libraries()
    from pipeline.demo import run_demo

    run_demo(out_, steps=steps, local=local)


def quiet_libraries() -> None:
    """Turn off the bars and advice of the model libraries, and let our own lines through."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("training").setLevel(logging.INFO)


def main() -> None:
    """Run the command line; a user's mistake ends in one message, never in a traceback."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # Pillow's remarks on broken EXIF
    try:
        app()
    except UsageError as error:
        _fail(error, Exit.USAGE)
    except (CatalogError, TrainingError, BuildError) as error:
        _fail(error, Exit.FAILED)
    except OSError as error:
        _fail(error, Exit.FAILED)


def _fail(error: Exception, code: Exit) -> None:
    text = str(error) or type(error).__name__
    err.print(f"[bold red]error:[/] {escape(text)}")
    sys.exit(code)


def _images(images: Sequence[str] | None, more: Sequence[str] | None) -> list[str]:
    found = [*(images or ()), *(more or ())]
    if not found:
        raise UsageError("say where the images are: --images URI...")
    return found


def _execution(fields: dict[str, Any]) -> Execution:
    from pydantic import ValidationError

    try:
        return Execution.model_validate(fields)
    except ValidationError as error:
        raise UsageError(_flags(error)) from error


def _policy(name: str) -> Policy:
    known: tuple[Policy, ...] = get_args(Policy)
    for policy in known:
        if policy == name:
            return policy
    raise UsageError(f"--policy {name!r} is unknown; expected one of {', '.join(known)}")


def _flags(error: Any) -> str:
    """Put a validation error in terms of the flags that were given."""
    issues = (("-".join(map(str, issue["loc"])), issue) for issue in error.errors())
    return "; ".join(
        f"--{name.replace('_', '-')} {issue['input']!r}: {issue['msg']}" for name, issue in issues
    )


def _counts(values: Sequence[str]) -> dict[str, int]:
    from collections import Counter

    return Counter(values)
