"""One night: the source looked at anew, what is new built and trained on, judged, and promoted.

Each stage is what a command does, too, and is recorded when it is done; a night that was stopped
goes on at the stage that it was in. What readers see changes once, at the end, and only for the
better: `pipeline.retrain.promotions` says what is current, a snapshot and a run.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from catalog import storage
from catalog.dataset import busy, tombstones
from catalog.dataset.dataset import MANIFEST, Dataset
from catalog.dataset.snapshots import take_snapshot
from catalog.source.ranking import parse_size
from pipeline.build.append import append_changes
from pipeline.build.build import Executor, Observer, build, is_planned
from pipeline.recipe.recipe import Recipe
from pipeline.report.page import write_page
from pipeline.retrain import figures
from pipeline.retrain.gate import Figures, judge
from pipeline.retrain.journal import Journal, Outcome, nights
from pipeline.retrain.lease import Lease, hold
from pipeline.retrain.nightly import Nightly
from pipeline.retrain.promotions import Candidate, Promotion, current, promote
from pipeline.retrain.training import Trainer
from pipeline.scan.chunks import Executor as Scanner
from pipeline.scan.kept import keep_found, read_found
from pipeline.scan.source import Inputs
from pipeline.unit.earlier_maps import same_maps

_log = logging.getLogger(__name__)

REPORT = "report.html"

STAGES = (
    *("removals", "build", "snapshot", "changes", "views"),
    *("latents", "train", "measure", "gate", "promotion"),
)
"""Names of the stages, in order; not every night has all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """With what a night works; none of it changes what comes out.

    Attributes:
        executor: runs units; see `pipeline.build.build.Executor`.
        scanner: reads the source; see `pipeline.scan.chunks.Executor`.
        observer: is told what the build does.
        trainer: trains and measures; None where the schedule only makes a dataset.
        captioner_elsewhere: other machines do the work; this one need not have the captioner.
        told: is given a line for people as each stage begins.
    """

    executor: Executor
    scanner: Scanner
    observer: Observer
    trainer: Trainer | None
    captioner_elsewhere: bool = False
    told: Callable[[str], None] = lambda line: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a night ended, with all its stages' outcomes.

    Attributes:
        night: its run id.
        outcome: promoted, refused or nothing new.
        sentence: why, in one sentence.
        stages: outcomes by the stages' names; JSON types.
    """

    night: str
    outcome: Outcome
    sentence: str
    stages: Mapping[str, Any]

    def summary(self) -> dict[str, Any]:
        """Return what a scheduler or a webhook is told, in JSON types."""
        taken = self.stages.get("snapshot", {})
        verdict = self.stages.get("gate", {})
        return {
            "night": self.night,
            "outcome": self.outcome.value,
            "why": self.sentence,
            "dataset": taken.get("dataset"),
            "images": taken.get("images"),
            "samples": taken.get("samples"),
            "changes": self.stages.get("changes"),
            "run": self.stages.get("train", {}).get("run"),
            "figures": verdict.get("figures"),
            "promotion": self.stages.get("promotion"),
        }


def run_night(config: Nightly, recipe: Recipe, night: str, means: Means, *, owner: str) -> Ended:
    """Do a night's work, or what is left of it; one that has ended is only told of.

    Args:
        config: of the schedule.
        recipe: of its dataset, with what the config overrides.
        night: its run id.
        means: with what.
        owner: who this is, for others to read.

    Raises:
        UsageError: the run id is none.
        BusyError: another scheduler is at work.
        LeaseLost: another one has taken over meanwhile.
        BuildError: the build could not go on; the same command does.
    """
    lapses_after = config.lease_lapses_after
    renew_each = min(busy.TOUCHED_EACH, lapses_after / 10)
    with hold(config.folder, owner, renew_each=renew_each, lapses_after=lapses_after) as lease:
        journal = Journal(config.folder, night)
        ended = journal.outcome
        if ended is not None:
            done = {name: journal.read(name) for name in STAGES}
            stages = {name: outcome for name, outcome in done.items() if outcome is not None}
            return Ended(night=night, outcome=ended[0], sentence=ended[1], stages=stages)
        return Night(config, recipe, journal, lease, means).run()


class Night:
    """The stages of one night, in order."""

    def __init__(
        self, config: Nightly, recipe: Recipe, journal: Journal, lease: Lease, means: Means
    ) -> None:
        """Prepare; `run` does the work.

        Args:
            config: of the schedule.
            recipe: of its dataset, with what the config overrides.
            journal: of this night.
            lease: under which it works.
            means: with what.
        """
        self._config = config
        self._recipe = recipe
        self._journal = journal
        self._lease = lease
        self._means = means
        self._done: dict[str, Any] = {}
        self._dataset = config.path("datasets", f"{recipe.name}-{recipe.fingerprint[:8]}")

    def run(self) -> Ended:
        """Do what is left of the night.

        Raises:
            LeaseLost: somebody else has taken the schedule over.
            BuildError: the build could not go on; so does the same command.
        """
        before = current(self._config.folder)
        self._stage("removals", self._remove)
        self._stage("build", self._build)
        taken = self._stage("snapshot", self._take)
        if before is not None and before.night != self._journal.run_id:
            if said := self._refused_already(taken):
                return self._end(Outcome.REFUSED, said)
            if _alike(before.figures["snapshot"], taken, ("dataset", "view")):
                return self._nothing_new(before)
        self._stage("changes", lambda: figures.changes(self._dataset, self._journal.run_id, before))
        self._stage("views", self._views)
        if self._means.trainer is not None:
            trainer, night = self._means.trainer, self._journal.run_id
            self._stage("latents", lambda: trainer.encode(self._dataset))
            self._stage("train", lambda: trainer.train(self._dataset, night, before))
            self._stage("measure", lambda: trainer.measure(self._dataset, night, before))
        verdict = self._stage("gate", lambda: self._judge(before))
        if not verdict["passed"]:
            return self._end(Outcome.REFUSED, " ".join(verdict["sentences"]))
        number = self._stage("promotion", lambda: self._promote(verdict))
        return self._end(Outcome.PROMOTED, f"It is promotion {number}.")

    def _stage(self, name: str, do: Callable[[], Any]) -> Any:
        def begin() -> Any:
            self._means.told(name)
            return do()

        self._lease.check()
        outcome = self._journal.stage(name, begin)
        if outcome is not None:
            self._done[name] = outcome
        return outcome

    def _end(self, outcome: Outcome, sentence: str) -> Ended:
        self._lease.check()
        self._journal.end(outcome, sentence)
        return Ended(
            night=self._journal.run_id, outcome=outcome, sentence=sentence, stages=self._done
        )

    def _remove(self) -> dict[str, Any]:
        """Take down what the list of removals names, before any of it is looked at again."""
        uri = self._config.removals
        if uri is None or not storage.exists(uri):
            return {"keys": 0}
        keys = tombstones.parse_keys(storage.read_bytes(uri).decode())
        for dataset in {self._dataset, *self._earlier()}:
            if keys:
                tombstones.bury(dataset, keys)
        return {"keys": len(keys)}

    def _earlier(self) -> list[str]:
        """Return the datasets of this schedule, of other recipes too."""
        root = self._config.path("datasets")
        return [storage.join(root, name) for name in storage.list_names(root)]

    def _build(self) -> dict[str, Any]:
        config, means = self._config, self._means
        inputs = Inputs(
            images=config.images,
            include=config.include,
            exclude=config.exclude,
            labels=config.labels,
            allowed=config.allow_paths,
        )
        execution = config.execution
        if execution.caption_cache is None:
            folder = {"caption_cache": config.path("captions")}
            execution = execution.model_copy(update=folder)
        if execution.reuse is None and (old := self._made_otherwise()) is not None:
            self._go_on_from(old)
            if same_maps(old, self._recipe):
                execution = execution.model_copy(update={"reuse": old.uri})
        parts: dict[str, Any] = {
            "executor": means.executor,
            "observer": means.observer,
            "scanner": means.scanner,
            "captioner_elsewhere": means.captioner_elsewhere,
        }
        if is_planned(self._dataset):
            found = append_changes(
                self._dataset, self._recipe, inputs, execution, whole=True, **parts
            )
            units = found.result.units_run
        else:
            made = build(self._recipe, self._dataset, inputs, execution, **parts)
            units = made.units_run
        return {"dataset": self._dataset, "units": units}

    def _made_otherwise(self) -> Dataset | None:
        """Return what is promoted, where that is a dataset by another recipe."""
        before = current(self._config.folder)
        if before is None or before.dataset == self._dataset:
            return None
        return Dataset.open(before.dataset)

    def _go_on_from(self, old: Dataset) -> None:
        """Have the scan read only files that are not as the other dataset's scan found them."""
        if not is_planned(self._dataset):
            found = read_found(old.uri)
            if found is not None:
                keep_found(self._dataset, found)

    def _take(self) -> dict[str, Any]:
        """Give the dataset, as it is, the night's name; it is never changed by a later one."""
        dataset = Dataset.open(self._dataset)
        taken = take_snapshot(dataset, self._journal.run_id)
        return {
            "dataset": self._dataset,
            "generation": taken.generation + 1,
            "source": taken.source,
            "view": taken.view,
            "manifest_sha": storage.sha256_file(dataset.path(MANIFEST)),
            "images": taken.images,
            "samples": taken.samples,
            "rejects": taken.rejects,
        }

    def _nothing_new(self, before: Promotion) -> Ended:
        """End a night whose samples are those that are promoted; images that gave none may differ.

        Of these the gate is asked, as all of a broken delivery may have been rejected.
        """
        verdict = self._stage("gate", lambda: self._judge(before))
        if not verdict["passed"]:
            return self._end(Outcome.REFUSED, " ".join(verdict["sentences"]))
        return self._end(Outcome.NOTHING_NEW, f"The dataset is that of night {before.night}.")

    def _refused_already(self, taken: Mapping[str, Any]) -> str | None:
        """Return why the last night refused this very dataset; None where it did not."""
        ended = [night for night, done in nights(self._config.folder).items() if done]
        if not ended:
            return None
        last = Journal(self._config.folder, ended[-1])
        outcome, snapshot = last.outcome, last.read("snapshot")
        assert outcome is not None, "a night that has ended without an outcome"
        same = _alike(snapshot, taken, ("dataset", "source", "view"))
        if not same or outcome[0] != Outcome.REFUSED:
            return None
        return f"As in night {last.run_id}, and nothing changed since: {outcome[1]}"

    def _views(self) -> dict[str, Any]:
        """Cut the subsets that the dataset is large enough for, and write its report."""
        dataset = Dataset.open(self._dataset)
        samples, sizes = dataset.sample_count(), map(parse_size, self._config.subsets)
        cut = [
            dataset.write_subset(size, policy="top", seed=0).name
            for size in sizes
            if size <= samples
        ]
        report = self._config.path("nights", self._journal.run_id, REPORT)
        storage.write_atomic(report, write_page(dataset, samples=6, sources=False).encode())
        return {"subsets": cut, "report": report}

    def _judge(self, before: Promotion | None) -> dict[str, Any]:
        taken, measured = self._done["snapshot"], self._done.get("measure", {})
        candidate = figures.of(taken, measured.get("candidate", ()))
        promoted: Figures | None = None
        if before is not None:
            promoted = figures.of(before.figures["snapshot"], measured.get("promoted", ()))
        came = figures.of_what_came(self._dataset, self._journal.run_id, before)
        verdict = judge(candidate, promoted, self._config.gate, came=came)
        return {
            **asdict(replace(verdict, sentences=())),
            "sentences": list(verdict.sentences),
            "compared_with": before.number if before else 0,
        }

    def _promote(self, verdict: Mapping[str, Any]) -> int:
        taken, trained = self._done["snapshot"], self._done.get("train", {})
        candidate = Candidate(
            night=self._journal.run_id,
            dataset=taken["dataset"],
            generation=taken["generation"],
            manifest_sha=taken["manifest_sha"],
            run=trained.get("run"),
            figures=json.loads(
                json.dumps(
                    {
                        "snapshot": taken,
                        "gate": verdict["figures"],
                        "measure": self._done.get("measure", {}),
                    }
                )
            ),
        )
        expected = verdict["compared_with"]
        return promote(self._config.folder, candidate, self._lease, expected=expected).number


def _alike(one: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str]) -> bool:
    return all(one[name] == other[name] for name in names)
