"""From flags, a file and a dataset's recipe to the settings of a training."""

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from catalog.dataset.dataset import Dataset
from pipeline.errors import UsageError, in_flags
from pipeline.recipe.made_by import base_of_recipe
from pipeline.recipe.yaml_file import load_model
from training.run.folder import SETTINGS, read_settings
from training.settings.config import TrainConfig

_STEPS = 10_000

_LENGTH = ("steps",)
_KEPT = ("batch_size", "gradient_accumulation", "learning_rate", "prompt_dropout", "phases")
"""What a recipe may say of its training, beside where it starts."""


def settings_of(
    flags: dict[str, Any],
    file: Path | None,
    overrides: list[str],
    *,
    runs: Path | None = None,
    from_base: bool = False,
) -> TrainConfig:
    """Return the settings: what a flag or --set gives, else the file, the recipe, the defaults.

    Args:
        flags: that were given, by the fields of `TrainConfig`.
        file: of --config, YAML.
        overrides: of --set.
        runs: folder of runs, in which the one that the recipe starts from is looked for.
        from_base: start from the base although the recipe names a run to start from.

    Raises:
        UsageError: something is missing or does not validate, or the run to start from is not here.
    """
    text = "{}" if file is None else _read(file)
    try:
        given = yaml.safe_load(text)
    except yaml.YAMLError:
        given = None  # told by `load_model`, with the line
    stated = {**(given if isinstance(given, dict) else {}), **flags}
    stated |= _values(overrides)
    dataset = stated.get("dataset")
    if not isinstance(dataset, str):
        raise UsageError("train needs --dataset, or dataset: in the file of --config")
    if "out" not in stated:
        raise UsageError("train needs --out RUN, or out: in the file of --config")
    found = {**_of_recipe(dataset, stated, runs, from_base), **flags}
    if "steps" not in stated:
        found.setdefault("steps", _STEPS)
    if file is None and not overrides:
        try:
            return TrainConfig(**found)
        except ValidationError as error:
            raise UsageError(in_flags(error)) from error
    lines = [f"{name}={json.dumps(value)}" for name, value in found.items()]
    return load_model(TrainConfig, text, name=str(file or "--set"), overrides=[*lines, *overrides])


def parse_phases(text: str) -> list[dict[str, Any]]:
    """Read phases as a flag has them: ``mid_only:2000,full:converged,unlocked``.

    Raises:
        UsageError: an end is neither a step nor ``converged``.
    """
    phases = []
    for part in text.split(","):
        trains, _, until = part.strip().partition(":")
        if until and until != "converged" and not until.isdecimal():
            raise UsageError(
                f"--phases {text}: {part.strip()!r} must end at a step or at converged, as in "
                "mid_only:2000,full:converged,unlocked"
            )
        end = int(until) if until.isdecimal() else until or None
        phases.append({"trains": trains, "until": end})
    return phases


def _values(overrides: list[str]) -> dict[str, Any]:
    """Return what --set gives, by key path; what is no YAML as text: `load_model` tells of it."""
    found: dict[str, Any] = {}
    for name, _, value in (one.partition("=") for one in overrides):
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            found[name] = value
    return found


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--config {file} cannot be read: {error.strerror}") from error


def _of_recipe(
    dataset: str, stated: dict[str, Any], runs: Path | None, from_base: bool
) -> dict[str, Any]:
    """Return what the dataset's recipe gives for settings that nobody stated."""
    opened = Dataset.open(dataset)
    recipe = opened.recipe
    training = recipe.get("training") or {}
    found: dict[str, Any] = {}
    if "base" not in stated:
        found["base"] = base_of_recipe(opened)
    conditions = [spec["condition"] for spec in recipe["detectors"]]
    if "condition" not in stated:
        if len(conditions) > 1:
            names = "|".join(conditions)
            raise UsageError(f"{dataset} has several conditions: --condition {names}")
        found["condition"] = conditions[0]
    begun = read_settings(Path(stated["out"])) is not None  # such a run keeps what it began with
    for name in _LENGTH if begun else (*_LENGTH, *_KEPT):
        if name not in stated and training.get(name) is not None:
            found[name] = training[name]
    start = training.get("start")
    if start and "start_from" not in stated and not from_base and stated.get("method") != "concat":
        found["start_from"] = _run_to_start_from(start, runs)
    return found


def _run_to_start_from(start: str, runs: Path | None) -> str:
    """Return the finished run of `runs` that was trained on the condition `start`."""
    if runs is None:
        raise UsageError(
            f"the paper starts this from a ControlNet trained on {start}: name it with "
            "--start-from RUN, or the folder of your runs with --runs DIR; --from-base goes on "
            "without"
        )
    folders = [runs / start, *sorted(path.parent for path in runs.glob(f"*/{SETTINGS}"))]
    for folder in folders:
        settings = read_settings(folder)
        if settings and settings["config"]["condition"] == start and settings["published_step"]:
            return str(folder)
    raise UsageError(
        f"--runs {runs} holds no finished run on {start}: train that first, name one with "
        "--start-from RUN, or take --from-base"
    )
