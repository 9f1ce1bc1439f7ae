"""The words of a dataset's card: the front matter that readers follow, and a text for people.

What an owner writes into a card stays: every key of the front matter that is not made here, and all
text outside the two marks.
"""

import json
import os
import re
from dataclasses import dataclass
from typing import Any

import yaml

from catalog.dataset.dataset import Dataset
from catalog.errors import DatasetError

_BEGIN, _END = "<!-- card: written by `card`, from here -->", "<!-- card: to here -->"
_LICENCE = "# license: left to the owner of the images and captions; for example cc-by-4.0\n"
_FRONT = re.compile(r"\A---\n(.*?)^---\n", re.DOTALL | re.MULTILINE)
_RANKED = {"resolution": "by resolution", "popularity": "by popularity, then by resolution"}
_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What ``load_dataset(folder, name)`` reads: tars, in order, and the columns shown."""

    name: str
    tars: list[str]
    members: list[str]
    samples: int


def write_text(
    old: str, dataset: Dataset, *, sentence: str, configs: list[Config], conditions: tuple[str, ...]
) -> str:
    """Return a card's text.

    Args:
        old: the card that stands there; "" for none.
        dataset: finished.
        sentence: what the dataset is.
        configs: the first holds everything.
        conditions: names of the condition maps.

    Raises:
        DatasetError: the old card's front matter cannot be read.
    """
    title = str(dataset.recipe.get("name", "dataset"))
    found, body = _split(old)
    front = _front(found, title, configs, conditions)
    return f"---\n{front}---\n{_between(body, _body(dataset, title, sentence, configs))}"


def _split(text: str) -> tuple[dict[str, Any], str]:
    """Return the front matter of a card, and what follows it."""
    found = _FRONT.match(text)
    if found is None:
        return {}, text
    try:
        front = yaml.safe_load(found[1]) or {}
    except yaml.YAMLError as error:
        raise DatasetError(f"the front matter of README.md is no YAML: {error}") from error
    if not isinstance(front, dict):
        raise DatasetError("the front matter of README.md is no mapping of names to values")
    return front, text[found.end() :]


def _front(
    old: dict[str, Any], title: str, configs: list[Config], conditions: tuple[str, ...]
) -> str:
    defaults = {
        "pretty_name": title,
        "task_categories": ["text-to-image"],
        "tags": ["controlnet", *conditions],
    }
    made = {
        "size_categories": [_size(configs[0].samples)],
        "configs": [_to_config(config) for config in configs],
        "dataset_info": [_to_features(config) for config in configs],
    }
    text = yaml.safe_dump(defaults | old | made, sort_keys=False, allow_unicode=True, width=1000)
    return text if "license" in old else _LICENCE + text


def _between(body: str, made: str) -> str:
    """Put what is made here between the two marks, or behind what stands there without them."""
    before, mark, rest = body.partition(_BEGIN)
    after = rest.partition(_END)[2] if mark else "\n"
    return f"{before}{_BEGIN}\n{made}\n{_END}{after}"


def _to_config(config: Config) -> dict[str, Any]:
    files = [{"split": "train", "path": list(config.tars)}]  # YAML would write an alias
    made: dict[str, Any] = {"config_name": config.name, "data_files": files}
    return made | ({"default": True} if config.name == "default" else {})


def _to_features(config: Config) -> dict[str, Any]:
    """Name the columns, so that no reader has to guess them from the first samples.

    Pictures and maps are RGB, as a ControlNet takes them: a map of one bit a pixel would come out
    as truth values otherwise.
    """
    rgb = {"image": {"mode": "RGB"}}
    kinds = {end: "string" if end == "txt" else rgb for end in config.members}
    columns: dict[str, Any] = {"__key__": "string", **kinds}
    features = [{"name": name, "dtype": kind} for name, kind in columns.items()]
    return {"config_name": config.name, "features": features}


def _size(samples: int) -> str:
    """Return the hub's category of a size: ``n<1K``, ``10K<n<100K``."""
    limits = [10 ** (3 + at) for at in range(len(_SIZES))]
    above = next((at for at, limit in enumerate(limits) if samples < limit), len(limits))
    if above == 0:
        return f"n<{_SIZES[0]}"
    return f"n>{_SIZES[-1]}" if above == len(limits) else f"{_SIZES[above - 1]}<n<{_SIZES[above]}"


def _body(dataset: Dataset, title: str, sentence: str, configs: list[Config]) -> str:
    status = dataset.status()
    choices = [f"| `{one.name}` | {one.samples:,} | {_columns(one)} |" for one in configs]
    lost = [f"| `{kind}` | {number:,} |" for kind, number in status.rejects.items()]
    recipe = json.dumps(_published(dataset.recipe), indent=2, sort_keys=True)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", recipe)), default=0))
    return f"""
# {title}

{sentence} {status.samples:,} samples from {status.images:,} images, ranked
{_RANKED[dataset.recipe.get("ranking", "resolution")]}.

```python
import datasets

rows = datasets.load_dataset("FOLDER-OR-HUB-ID", "default", split="train")
```

| configuration | samples | columns |
|---|---:|---|
{chr(10).join(choices)}

A sample is `<key>.*` in a tar of `shards/`; the key is the first 32 hex characters of the source
image's sha256. Each sample also has a `<key>.json` with what its detectors drew. `manifest.parquet`
has a row a sample, in order, with sizes, hashes and the place of its bytes. `croissant.json` has
the sha256 of every shard.

## Images that gave no sample

{_table("reason", lost) if lost else "None."}

## How it was made

Recipe fingerprint `{dataset.fingerprint}`. The same images and recipe give the same bytes.

<details><summary>recipe</summary>

{fence}json
{recipe}
{fence}

</details>

## Licence

This dataset is made from images and captions whose rights their owners keep; who publishes it says
here, and in `license` above, under which terms it may be used. To have a sample taken down, give
its key.
"""


def _published(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe without where its captioner's folder lies: its name tells enough."""
    captions = dict(recipe.get("captions") or {})
    model = captions.get("model")
    if isinstance(model, str) and (os.path.isabs(model) or "://" in model):
        captions["model"] = model.rstrip("/").rpartition("/")[2]
    return recipe | ({"captions": captions} if captions else {})


def _columns(config: Config) -> str:
    return ", ".join(f"`{end}`" for end in config.members)


def _table(head: str, rows: list[str]) -> str:
    return "\n".join((f"| {head} | images |", "|---|---:|", *rows))
