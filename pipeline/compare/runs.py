"""What the folders of runs hold that is compared, and how their settings differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.errors import UsageError
from training.run.folder import SETTINGS, begun_with, read_settings
from training.watch.run_plots import common_references
from training.watch.signals import ProbeRecord, ReferenceRecord, losses, probes

_HAS_ITS_COLUMN = {"method", "steps"}
_CHANGES_NOTHING = {
    "out",
    "num_workers",
    "log_every",
    "checkpoint_every",
    "keep_last",
    "local_files_only",
    "wandb",
    "cache",
}
_BY_CONTENT = ("dataset", "base")
"""Settings that name a place: runs differ where the fingerprint of what lies there does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as its folder records it.

    Attributes:
        label: what it is called beside the others.
        folder: of the run.
        settings: the fields of `TrainConfig`, by name; JSON types.
        identity: see `training.run.folder`.
        references: what its probes stand beside.
        probes: one or more, by their steps.
        images_per_second: the median over the run; None where none was recorded.
    """

    label: str
    folder: Path
    settings: Mapping[str, Any]
    identity: Mapping[str, Any]
    references: ReferenceRecord
    probes: tuple[ProbeRecord, ...]
    images_per_second: float | None

    @property
    def samples_per_step(self) -> int:
        """Samples that one optimizer step reads, in all processes."""
        return int(self.identity["samples_per_step"])

    @property
    def rows(self) -> int | None:
        """Rows that it is trained on; None where an old run did not say."""
        rows = self.identity.get("rows")
        return None if rows is None else int(rows)


def label_folders(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the folders by name, with as many of the folders above as make the names differ.

    Raises:
        UsageError: fewer than two, or one twice.
    """
    if len(folders) < 2:
        raise UsageError(f"compare needs at least 2 runs, got {len(folders)}")
    parts = [folder.resolve().parts for folder in folders]
    if len(set(parts)) < len(parts):
        twice = next(folder for at, folder in enumerate(folders) if parts.index(parts[at]) < at)
        raise UsageError(f"{twice} is named twice: name each run once")
    labels = ["/".join(part[-1:]) for part in parts]
    depth = 1
    while len(set(labels)) < len(labels):
        depth += 1
        labels = ["/".join(part[-depth:]) for part in parts]
    return dict(zip(labels, folders, strict=True))


def read_runs(folders: Mapping[str, Path]) -> list[RunRecord]:
    """Return what the runs recorded, by label in order.

    Raises:
        UsageError: a folder is no run.
        TrainingError: a run has no probes, or was probed on other samples than the first.
    """
    for folder in folders.values():
        if read_settings(folder) is None:
            raise UsageError(f"{folder} is no run: it has no {SETTINGS}")
    references = common_references(folders)
    return [
        _read(label, folder, reference)
        for (label, folder), reference in zip(folders.items(), references, strict=True)
    ]


def differing_settings(runs: Sequence[RunRecord]) -> dict[str, list[str]]:
    """Return the settings in which the runs differ, each with its values as text, one a run."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    values = {
        name: [_value(run, name) for run in runs]
        for name in names
        if name not in _HAS_ITS_COLUMN | _CHANGES_NOTHING
    }
    return {
        name: [_text(name, value) for value in found]
        for name, found in values.items()
        if any(value != found[0] for value in found)
    }


def _read(label: str, folder: Path, references: ReferenceRecord) -> RunRecord:
    rates = [record.images_per_second for record in losses(folder).read()]
    return RunRecord(
        label=label,
        folder=folder,
        settings=begun_with(folder) or {},
        identity=(read_settings(folder) or {})["identity"],
        references=references,
        probes=tuple(probes(folder).read()),
        images_per_second=median(rates) if rates else None,
    )


def _value(run: RunRecord, name: str) -> Any:
    return run.identity[name] if name in _BY_CONTENT else run.settings.get(name)


def _text(name: str, value: Any) -> str:
    """Write a setting; phases as the flag has them, contents by the start of their hash."""
    if value is None:
        return "all" if name == "subset" else "-"
    if name in _BY_CONTENT:
        return str(value)[:8]
    if name == "phases":
        return ",".join(_phase(phase) for phase in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _phase(phase: Mapping[str, Any]) -> str:
    until = "" if phase["until"] is None else f":{phase['until']}"
    rate = phase.get("learning_rate")
    scope = " (all)" if phase.get("scope") == "all" and phase["trains"] == "unlocked" else ""
    return f"{phase['trains']}{until}{scope}" + ("" if rate is None else f" at {rate:g}")
