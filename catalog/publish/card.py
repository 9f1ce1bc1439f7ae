"""A dataset's card: the README.md that Hugging Face `datasets` and the hub read, and Croissant.

The card's front matter names configurations: everything, each condition, each subset. A
configuration is a list of tars with the columns that it shows, so ``load_dataset(folder, "1k")``
needs no code of ours.
"""

from dataclasses import dataclass

import pyarrow.compute as pc

from catalog import storage, tables
from catalog.dataset import busy, commits, tombstones
from catalog.dataset.dataset import MANIFEST, Dataset, View
from catalog.dataset.subset_tars import write_tars
from catalog.errors import DatasetError
from catalog.publish.card_text import Config, write_text
from catalog.publish.croissant import CROISSANT, describe
from catalog.sample import OK

README = "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What was written: the configurations, and how many samples were copied for subsets."""

    configs: list[Config]
    copied: int


def write_card(dataset: Dataset) -> Card:
    """Write README.md, croissant.json and the tars that subsets need; again replaces them.

    Raises:
        DatasetError: the dataset is not finished or empty, or its shards still hold what was taken
            down, or samples of another time.
    """
    view = dataset.view()
    if not len(view):
        raise DatasetError(f"{dataset.uri} holds no sample, so there is nothing to describe")
    _refuse_buried(dataset)
    _refuse_left_behind(dataset)
    with busy.marked(dataset.uri, busy.CARD):
        return _write_card(dataset, view)


def _write_card(dataset: Dataset, view: View) -> Card:
    members = _members(view)
    configs, copied = _configs(dataset, view, list(members))
    name = str(dataset.recipe.get("name", "dataset"))
    sentence = f"Images with captions and {_and(view.conditions)} maps, for training ControlNets."
    data = describe(dataset, name=name, description=sentence, members=members)
    storage.write_atomic(dataset.path(CROISSANT), data)
    uri = dataset.path(README)
    old = storage.read_bytes(uri).decode("utf-8", "replace") if storage.exists(uri) else ""
    text = write_text(old, dataset, sentence=sentence, configs=configs, conditions=view.conditions)
    storage.write_atomic(uri, text.encode())
    return Card(configs=configs, copied=copied)


def _configs(dataset: Dataset, view: View, members: list[str]) -> tuple[list[Config], int]:
    """Return the configurations, everything first, and how many samples were copied for them."""
    tars = [
        f"{commits.SHARDS}/{name}" for name in sorted(pc.unique(view.table["shard"]).to_pylist())
    ]
    configs = [Config(name="default", tars=tars, members=members, samples=len(view))]
    for condition in view.conditions:
        hidden = {f"{other}.png" for other in view.conditions if other != condition}
        shown = [end for end in members if end not in hidden]
        configs.append(Config(name=condition, tars=tars, members=shown, samples=len(view)))
    total = 0
    for name in dataset.subsets():
        subset = dataset.view(name)
        if not len(subset):
            continue  # all of it was taken down; a configuration without files cannot be read
        tars, copied = write_tars(view, subset)
        configs.append(Config(name=name, tars=tars, members=members, samples=len(subset)))
        total += copied
    return configs, total


def _and(names: tuple[str, ...]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _refuse_buried(dataset: Dataset) -> None:
    """The tars are named as they lie, so nothing that was taken down may still lie in them."""
    keys = tombstones.removed_keys(dataset.uri)
    manifest = tables.read_table(dataset.path(MANIFEST), ["key"])
    if keys and pc.any(tombstones.is_removed(manifest["key"], keys)).as_py():
        raise DatasetError(
            f"the shards still hold samples that were removed: compact {dataset.uri} first"
        )


def _refuse_left_behind(dataset: Dataset) -> None:
    """Nor may what the source has no more, or tells otherwise now, as the tars are named whole."""
    if not dataset.plans.grown:
        return
    shown = tables.count_values(tables.read_table(dataset.path(MANIFEST), ["shard"])["shard"])
    done = commits.read_commits(dataset.uri)
    held = sum(one.counts.get(OK, 0) for one in done if one.shard.name in shown)
    if held > sum(shown.values()):
        kept = "; drop the snapshots that still show them" if dataset.snapshots() else ""
        raise DatasetError(
            f"its shards hold {held - sum(shown.values()):,} samples that the dataset has no more: "
            f"compact {dataset.uri} first{kept}"
        )


def _members(view: View) -> dict[str, str]:
    """Return the endings of a sample's files that become columns, with what each holds."""
    image = view.read(0).image_format
    maps = {f"{name}.png": f"the {name} map, of the image's size" for name in view.conditions}
    return {image: "the image", **maps, "txt": "the caption"}
