"""The signals of a run, kept in its folder as JSON lines.

RUN/signals/probes.jsonl      a `ProbeRecord` a probe
RUN/signals/losses.jsonl      a `LossRecord` each few steps
RUN/signals/references.json   what adherence stands beside: measured once, before the first step
RUN/signals/pictures/         what was made; see training/watch/step_pictures.py
RUN/signals/earlier/001/      the last three of before the run was probed on other samples

A line is written whole or, by a process that was killed, in part: a last line without its end is
none. A run that resumes first forgets what lies behind its checkpoint, so that no step is there
twice.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from catalog.storage import write_atomic
from training.errors import TrainingError
from training.measure.adherence import References

SIGNALS = "signals"
PICTURES = "pictures"
_PROBES = "probes.jsonl"
_REFERENCES = "references.json"
_EARLIER = "earlier"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRecord:
    """One probe.

    Attributes:
        step: optimizer steps done.
        per_sample: adherence of each held-out sample, in the metric's unit.
        adherence: their mean.
        normalised: the mean on the scale of 0, no control, to 1, the photographs.
        condition_gap: loss with shuffled conditions less that with the true ones.
    """

    step: int
    per_sample: tuple[float, ...]
    adherence: float
    normalised: float
    condition_gap: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRecord:
    """The loss of some steps.

    Attributes:
        step: the last of them.
        loss: their mean.
        images_per_second: samples trained on a second.
    """

    step: int
    loss: float
    images_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceRecord:
    """What the probes of a run are read by.

    Attributes:
        metric: name, with the unit.
        higher_is_better: whether obedience raises the score.
        keys: of the held-out samples.
        references: scores that adherence stands beside.
        steps: of DDIM; None in runs of earlier versions.
        guidance_scale: of the pictures; None likewise.
    """

    metric: str
    higher_is_better: bool
    keys: tuple[str, ...]
    references: References
    steps: int | None = None
    guidance_scale: float | None = None


Record = TypeVar("Record", bound=ProbeRecord | LossRecord)


class Series(Generic[Record]):
    """Records of one kind in a file, in the order of their steps."""

    def __init__(self, path: Path, parse: Callable[[dict[str, Any]], Record]) -> None:
        self._path = path
        self._parse = parse
        self._last: int | None = None

    def append(self, record: Record) -> None:
        """Add a record, whose step lies behind all others.

        Raises:
            ValueError: a later step is there; `forget_after` was not called on resuming.
        """
        if self._last is None:
            self._last = max((one.step for one in self._records()), default=-1)
        if record.step <= self._last:
            raise ValueError(f"{self._path} has step {self._last}, cannot add {record.step}")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(record))
        self._last = record.step

    def read(self) -> list[Record]:
        """Return all records; none where there is no file yet.

        Raises:
            TrainingError: a line is damaged.
        """
        return list(self._records())

    def forget_after(self, step: int) -> None:
        """Drop the records of later steps, and a line that was not finished."""
        if self._path.is_file():
            kept = "".join(_line(record) for record in self._records() if record.step <= step)
            write_atomic(str(self._path), kept.encode())
        self._last = None

    def _records(self) -> Iterator[Record]:
        if not self._path.is_file():
            return
        lines = self._path.read_text(encoding="utf-8").split("\n")
        for number, line in enumerate(lines[:-1], start=1):  # behind the last end: nothing, or part
            try:
                yield self._parse(json.loads(line))
            except (ValueError, TypeError, KeyError) as error:
                raise TrainingError(
                    f"{self._path}, line {number}, is damaged ({error}): delete the line"
                ) from error


def probes(run: Path) -> Series[ProbeRecord]:
    """Return the probes of a run."""
    return Series(run / SIGNALS / _PROBES, _probe)


def best_step(run: Path) -> int | None:
    """Return the step of the best adherence so far; None where nothing was probed."""
    records = probes(run).read()
    return max(records, key=lambda record: record.normalised).step if records else None


def losses(run: Path) -> Series[LossRecord]:
    """Return the losses of a run."""
    return Series(run / SIGNALS / "losses.jsonl", _loss)


def write_references(run: Path, record: ReferenceRecord) -> None:
    """Keep what the probes of a run are read by, atomically."""
    path = run / SIGNALS / _REFERENCES
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(str(path), json.dumps(asdict(record), indent=2).encode())


def read_references(run: Path) -> ReferenceRecord | None:
    """Return what `write_references` kept; None where it has not been called."""
    path = run / SIGNALS / _REFERENCES
    if not path.is_file():
        return None
    fields = json.loads(path.read_bytes())
    fields["references"] = References(**fields["references"])
    return ReferenceRecord(**fields | {"keys": tuple(fields["keys"])})


def set_aside(run: Path) -> Path | None:
    """Move the probes of a run, with what they are read by, away; return where, None without any.

    What they are read by goes last: who is killed on the way finds them as they were.
    """
    folder = run / SIGNALS
    if not (folder / _PROBES).is_file() and not (folder / _REFERENCES).is_file():
        return None
    number = 1 + len(list((folder / _EARLIER).glob("[0-9]*")))
    earlier = folder / _EARLIER / f"{number:03d}"
    earlier.mkdir(parents=True)
    for name in (PICTURES, _PROBES, _REFERENCES):
        if (folder / name).exists():
            (folder / name).rename(earlier / name)
    return earlier


def _probe(fields: dict[str, Any]) -> ProbeRecord:
    return ProbeRecord(**{**fields, "per_sample": tuple(fields["per_sample"])})


def _loss(fields: dict[str, Any]) -> LossRecord:
    return LossRecord(**fields)


def _line(record: ProbeRecord | LossRecord) -> str:
    return json.dumps(asdict(record), allow_nan=False) + "\n"
