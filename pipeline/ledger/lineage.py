"""From a ControlNet to the images that it was trained on, and back: who saw what.

Nothing is recorded for it alone: a run's train.json names dataset, snapshot and start, a dataset's
recipe the detectors, the captioner and their checkpoints, its source the images.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalog.dataset import snapshots
from catalog.dataset.dataset import Dataset
from catalog.errors import CatalogError
from pipeline.errors import UsageError
from pipeline.ledger.explain import Story, find, tell
from pipeline.recipe.made_by import recipe_of
from training.data.held_out import held_out_view, read_held_out
from training.errors import TrainingError
from training.run.folder import SETTINGS, read_settings, run_of

_MOST = 100  # runs that started from each other; more is a circle

TRAINED, HELD_OUT, NOT_SEEN, UNKNOWN = "trained on", "held out", "not seen", "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a dataset was made of, and with.

    Attributes:
        dataset: URI.
        recipe: name.
        fingerprint: of the recipe.
        sources: URIs that were scanned.
        images: found in them, as they are now.
        networks: condition -> checkpoints of what drew it, with what identifies each.
        captions: captioner, with its model and revision where it has one.
    """

    dataset: str
    recipe: str
    fingerprint: str
    sources: tuple[str, ...]
    images: int
    networks: dict[str, dict[str, str]]
    captions: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A run, and what it came from.

    Attributes:
        run: its folder.
        steps: optimizer steps of the network that is published; None where it has none yet.
        condition: it was trained on.
        base: with its revision, and the hash of its weights.
        snapshot: of the dataset; None where it is the dataset as it was when training began.
        subset: of it.
        samples: that it trained on.
        held_out: samples kept out.
        view: fingerprint of the samples that it trained on.
        made: the dataset; None where it is not where it was.
        missing: why, then.
        start: the run that it went on from, or its path where no run is there any more.
    """

    run: str
    steps: int | None
    condition: str
    base: str
    snapshot: str | None
    subset: str | None
    samples: int
    held_out: int
    view: str
    made: Made | None
    missing: str | None
    start: "Trained | str | None"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a run had to do with an image.

    Attributes:
        run: its folder.
        how: trained on, held out, not seen; unknown where the rows that it trained on are not
            known any more.
    """

    run: str
    how: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image's part in a dataset and in the runs on it.

    Attributes:
        dataset: URI.
        story: as `explain` tells it.
        snapshots: that hold it.
        runs: on the dataset.
    """

    dataset: str
    story: Story
    snapshots: tuple[str, ...]
    runs: tuple[Seen, ...]


def of_run(folder: Path) -> Trained:
    """Return where a run comes from.

    Raises:
        UsageError: there is no run.
    """
    return _of_run(folder, _MOST)


def _of_run(folder: Path, most: int) -> Trained:
    run = run_of(folder)
    settings = None if run is None else read_settings(run)
    if run is None or settings is None:
        raise UsageError(f"{folder} is no run: it has no {SETTINGS}")
    config, identity = settings["config"], settings["identity"]
    made, missing = None, None
    try:
        made = of_dataset(Dataset.open(config["dataset"]))
    except (CatalogError, OSError) as error:
        missing = str(error)
    named: str | None = config.get("start_from")
    start: Trained | str | None = named
    if named is not None and most and run_of(Path(named)) is not None:
        start = _of_run(Path(named), most - 1)
    revision = f"@{config['revision']}" if config.get("revision") else ""
    return Trained(
        run=str(run),
        steps=settings.get("published_step"),
        condition=config["condition"],
        base=f"{config['base']}{revision} {identity['base'][:12]}",
        snapshot=config.get("snapshot"),
        subset=config.get("subset"),
        samples=identity["rows"],
        held_out=len(read_held_out(run)),
        view=identity["view"],
        made=made,
        missing=missing,
        start=start,
    )


def of_dataset(dataset: Dataset) -> Made:
    """Return what a dataset was made of, and with."""
    recipe, told = recipe_of(dataset), dataset.source_metadata()
    networks = {
        spec.condition: {spec.network.checkpoint: spec.network.identity}
        for spec in recipe.detectors
        if spec.network is not None
    }
    captions = dataset.recipe["captions"]
    wanted = ("captioner", "model", "revision")
    return Made(
        dataset=dataset.uri,
        recipe=recipe.name,
        fingerprint=dataset.fingerprint,
        sources=tuple(told.get("images") or [told[name] for name in ("from",) if name in told]),
        images=dataset.status().images,
        networks=networks,
        captions={name: captions[name] for name in wanted if captions.get(name) is not None},
    )


def of_image(named: str, datasets: Sequence[str], runs: Iterable[Path]) -> list[Image]:
    """Return an image's part in each dataset that knows it, and in the runs on these.

    Args:
        named: as for `pipeline.ledger.explain.find`.
        datasets: URIs.
        runs: folders of runs.

    Raises:
        UsageError: none of the datasets knows it.
    """
    settings = [(run, read_settings(run)) for run in runs]
    found = []
    for uri in datasets:
        dataset = Dataset.open(uri)
        try:
            stories = tell(dataset, find(dataset, named))
        except UsageError:
            continue
        ours = [
            (run, told)
            for run, told in settings
            if told is not None and told["identity"]["dataset"] == dataset.fingerprint
        ]
        held = {name: set(dataset.view(snapshot=name).keys()) for name in dataset.snapshots()}
        found += [
            Image(
                dataset=dataset.uri,
                story=story,
                snapshots=tuple(name for name, keys in held.items() if story.key in keys),
                runs=tuple(
                    Seen(run=str(run), how=_how(dataset, run, told, story.key))
                    for run, told in ours
                ),
            )
            for story in stories
        ]
    if not found:
        raise UsageError(
            f"no image of {', '.join(datasets)} is {named!r}: give a key, a sha256, or a path as "
            "the scan met it"
        )
    return found


def _how(dataset: Dataset, run: Path, settings: dict[str, Any], key: str | None) -> str:
    """Return what a run had to do with the image of a key, by the rows that it trained on.

    A snapshot tells of what was taken down since, too, until the dataset is compacted.
    """
    if key in read_held_out(run):
        return HELD_OUT
    config, identity = settings["config"], settings["identity"]
    try:
        if config.get("snapshot") is not None:
            then = snapshots.read_samples(dataset.uri, config["snapshot"], config.get("subset"))
            if key in then["key"].to_pylist():
                return TRAINED
        view = dataset.view(config.get("subset"), snapshot=config.get("snapshot"))
        rows = held_out_view(view, view, read_held_out(run)).training
        keys = set(rows.keys())
    except (CatalogError, TrainingError):  # the subset or snapshot was deleted, or is empty now
        return UNKNOWN
    if rows.fingerprint != identity["view"]:
        return UNKNOWN
    return TRAINED if key in keys else NOT_SEEN
