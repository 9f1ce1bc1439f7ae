"""From --sizes or --vary to the trainings of an ablation."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from catalog.dataset.dataset import Dataset
from pipeline.commands.train_settings import parse_phases, settings_of
from pipeline.errors import UsageError
from training.settings.config import TrainConfig

_ALL = "all"
_SAME = {
    "dataset": "all runs train on one dataset",
    "out": "each run has its folder below --out",
    "subset": "use --sizes",
    "snapshot": "runs on several snapshots hold different samples out",
    "condition": "runs on several conditions cannot be compared",
    "held_out": "only runs with the same held-out samples can be compared",
    "mixed_precision": "a process has one: use train for each run, then compare",
}
"""Settings that do not vary, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One training of an ablation.

    Attributes:
        label: of its run, and the name of its folder.
        name: the setting that it has of its own; a field of `TrainConfig`.
        value: of that setting.
    """

    label: str
    name: str
    value: Any


def variants_of(sizes: str | None, vary: str | None, dataset: Dataset) -> list[Variant]:
    """Return the trainings that were asked for, in the order of their values.

    Args:
        sizes: of --sizes, names of subsets, or all: ``1k,10k,all``.
        vary: of --vary: ``method=controlnet,concat``; values that hold commas end at semicolons.
        dataset: that has the subsets.

    Raises:
        UsageError: neither or both are given, fewer than two values, a value twice, a subset that
            is not there, or a setting that does not vary.
    """
    if (sizes is None) == (vary is None):
        raise UsageError("ablate needs one of --sizes 1k,10k,all and --vary method=controlnet,...")
    if sizes is not None:
        made = [_of_size(name, dataset) for name in _split(sizes)]
    else:
        made = _of_values(vary or "")
    labels = [one.label for one in made]
    if len(set(labels)) < len(labels) or len(labels) < 2:
        flag = f"--sizes {sizes}" if vary is None else f"--vary {vary}"
        raise UsageError(f"{flag}: expected 2 or more values, each once")
    return made


def check_same(flags: Collection[str], overrides: list[str], varied: str) -> None:
    """Refuse a flag or --set for what each run has of its own.

    Args:
        flags: names of the settings that flags give.
        overrides: of --set.
        varied: name of the setting that varies.

    Raises:
        UsageError: one does.
    """
    if varied in flags:
        flag = varied.replace("_", "-")
        raise UsageError(f"--{flag} and --vary {varied} go against each other: leave one out")
    for override in overrides:
        name = re.split(r"[.=]", override, maxsplit=1)[0]
        if name in ("dataset", "out", varied):
            raise UsageError(f"--set {override}: {name} is each run's own in an ablation")


def configs_of(
    variants: Sequence[Variant],
    folder: Path,
    flags: dict[str, Any],
    file: Path | None,
    overrides: list[str],
    *,
    runs: Path | None = None,
    from_base: bool = False,
) -> dict[str, TrainConfig]:
    """Return the settings of each training, by label; the runs lie in FOLDER/runs.

    Args:
        variants: of the ablation.
        folder: of the ablation.
        flags: as for `settings_of`, like the others.
        file: of --config.
        overrides: of --set.
        runs: of --runs.
        from_base: start from the base whatever the recipe says.

    Raises:
        UsageError: something is missing or does not validate.
    """
    return {
        one.label: settings_of(
            {**flags, one.name: one.value, "out": str(folder / "runs" / one.label)},
            file,
            overrides,
            runs=runs,
            from_base=from_base,
        )
        for one in variants
    }


def _of_size(name: str, dataset: Dataset) -> Variant:
    known = dataset.subsets()
    if name not in (*known, _ALL):
        raise UsageError(
            f"--sizes {name}: {dataset.uri} has {', '.join([*known, _ALL])}; make it with: "
            f"subset {dataset.uri} --sizes {name}"
        )
    return Variant(label=name, name="subset", value=None if name == _ALL else name)


def _of_values(vary: str) -> list[Variant]:
    name, equals, text = vary.partition("=")
    if not equals or name not in TrainConfig.model_fields:
        raise UsageError(
            f"--vary {vary}: write a setting of a run with its values, as in "
            "method=controlnet,concat; docs/training.md has the settings"
        )
    if name in _SAME:
        raise UsageError(f"--vary {name} cannot be: {_SAME[name]}")
    return [Variant(label=_label(one), name=name, value=_value(name, one)) for one in _split(text)]


def _split(text: str) -> list[str]:
    return [one.strip() for one in text.split(";" if ";" in text else ",") if one.strip()]


def _value(name: str, text: str) -> Any:
    if name == "phases":
        return parse_phases(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--vary {name}: {text!r} is no value") from error


def _label(value: str) -> str:
    """Return a value as the name of a folder."""
    return re.sub(r"[^\w.+,=-]+", "-", value).strip("-.") or "value"
