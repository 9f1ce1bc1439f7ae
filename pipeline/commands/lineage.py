"""The command that walks from a ControlNet to its images, and back."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.tree import Tree

from pipeline.commands.options import Json
from pipeline.terminal.console import out, show_json
from pipeline.terminal.quiet import quiet_libraries

if TYPE_CHECKING:
    from pipeline.ledger.lineage import Image, Trained

app = typer.Typer()


@app.command()
def lineage(
    named: Annotated[
        str,
        typer.Argument(metavar="RUN|IMAGE", help="A run's folder; or a key, a sha256, a path."),
    ],
    dataset: Annotated[
        list[str] | None, typer.Option(help="Of an image: where it may be. Repeatable.")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Of an image: folder of the runs that may have seen it.")
    ] = None,
    json: Json = False,
) -> None:
    """Tell where a ControlNet comes from; or which datasets, snapshots and runs saw an image."""
    quiet_libraries()
    from pipeline.ledger.lineage import of_image, of_run
    from training.run.folder import SETTINGS

    if not dataset:
        trained = of_run(Path(named))
        if json:
            show_json(asdict(trained))
        else:
            out.print(_tree_of(trained))
        return
    folders = [] if runs is None else sorted(path.parent for path in runs.glob(f"*/{SETTINGS}"))
    images = of_image(named, dataset, folders)
    if json:
        show_json({"images": [asdict(image) for image in images]})
        return
    for image in images:
        out.print(_tree_of_image(image))


def _tree_of(trained: "Trained") -> Tree:
    tree = Tree(f"run {escape(trained.run)}")
    steps = "no network yet" if trained.steps is None else f"{trained.steps:,} steps"
    tree.add(f"{steps} on {escape(trained.condition)}, base {escape(trained.base)}")
    rows = f"{trained.samples:,} samples, {trained.held_out:,} held out"
    of = [f"snapshot {trained.snapshot}"] if trained.snapshot else []
    of += [f"subset {trained.subset}"] if trained.subset else []
    tree.add(escape(", ".join([rows, *of, f"view {trained.view[:12]}"])))
    if trained.made is None:
        tree.add(f"dataset: {escape(trained.missing or '')}")
    else:
        made = tree.add(f"dataset {escape(trained.made.dataset)}")
        for line in _lines(asdict(trained.made)):
            made.add(escape(line))
    if isinstance(trained.start, str):
        tree.add(f"went on from {escape(trained.start)}, which is no run here")
    elif trained.start is not None:
        tree.add("went on from").children.append(_tree_of(trained.start))
    return tree


def _lines(made: dict[str, Any]) -> Iterator[str]:
    yield f"recipe {made['recipe']} {made['fingerprint'][:12]}"
    for condition, checkpoints in made["networks"].items():
        for name, identity in checkpoints.items():
            yield f"{condition} by {name} ({identity[:12]})"
    yield "captions: " + " ".join(map(str, made["captions"].values()))
    yield f"{made['images']:,} images from {', '.join(made['sources']) or 'a table'}"


def _tree_of_image(image: "Image") -> Tree:
    story = image.story
    tree = Tree(f"{escape(story.source['uri'])}")
    tree.add(f"key {story.key}, {escape(story.status)} in {escape(image.dataset)}")
    tree.add(escape(f"snapshots: {', '.join(image.snapshots) or 'none'}"))
    for seen in image.runs:
        tree.add(escape(f"{seen.run}: {seen.how}"))
    return tree
