"""The part of a night that trains: latents, a ControlNet, and how well it obeys."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from catalog.dataset.dataset import Dataset
from catalog.dataset.latents import UnitLatents
from catalog.sample import canonical_json, sha256_hex
from pipeline.evaluate.evaluate import Request, evaluate_run
from pipeline.precompute.encoder import Precompute
from pipeline.precompute.precompute import precompute
from pipeline.recipe.made_by import condition_spec
from pipeline.retrain.nightly import Nightly
from pipeline.retrain.promotions import Promotion
from training.data.held_out import FILE as HELD_OUT
from training.data.held_out import choose_held_out, read_held_out, write_held_out
from training.measure.evaluation import GENERATED
from training.run.device import for_device
from training.run.loop import train
from training.settings.config import TrainConfig

_TENTH = 10


class Trainer:
    """Trains and measures for the nights of one schedule."""

    def __init__(
        self,
        config: Nightly,
        settings: Callable[[dict[str, Any]], TrainConfig],
        encoder: Callable[[Precompute, Sequence[str]], Iterator[UnitLatents]],
    ) -> None:
        """Prepare.

        Args:
            config: of the schedule, which trains.
            settings: from what is stated to the settings of a training, as the command `train` has
                them: with what the dataset's recipe says.
            encoder: runs units; see `pipeline.precompute.precompute.Executor`.
        """
        self._config = config
        self._settings = settings
        self._encoder = encoder

    def encode(self, dataset: str) -> dict[str, Any]:
        """Encode what came, ahead of the training."""
        if self._config.latents is None:
            return {"units": 0}
        stated = self._stated(dataset, "latents", None)
        config = self._settings(stated)
        request = Precompute(
            dataset=dataset,
            base=config.base,
            revision=config.revision,
            vae=config.vae,
            local_files_only=config.local_files_only,
            mirrored=config.flip,
            **self._config.latents.model_dump(),
        )
        made = precompute(request, executor=self._encoder)
        return {"units": made.units, "folder": made.folder}

    def train(self, dataset: str, night: str, before: Promotion | None) -> dict[str, Any]:
        """Train a night's ControlNet, or go on with it."""
        config, _ = for_device(self._settings(self._stated(dataset, night, before)))
        run = Path(config.out)
        if not (run / HELD_OUT).is_file():
            write_held_out(run, self._to_hold_out(dataset, night, before))
        config = config.model_copy(update={"held_out": len(read_held_out(run))})
        if self._config.ray_workers is not None:
            from pipeline.retrain.on_ray import train_on_ray

            made = train_on_ray(config, self._config.ray_workers)
        else:
            spec = condition_spec(Dataset.open(dataset), config.condition)
            made = train(config, spec=spec)
        return {"run": config.out, "steps": made.steps, "start_from": config.start_from}

    def measure(self, dataset: str, night: str, before: Promotion | None) -> dict[str, Any]:
        """Measure the night's run and the promoted one on the same samples, a seed at a time.

        What the promoted run's night measured is taken over where it was measured alike.
        """
        keys = read_held_out(self._config.run_folder(night))
        there = set(Dataset.open(dataset).view().keys())
        how = {"keys": [key for key in keys if key in there], **self._config.measure.model_dump()}
        alike = sha256_hex(canonical_json(json.loads(json.dumps(how))))[:16]
        promoted: list[float] = []
        if before is not None and before.run is not None:
            known = before.figures.get("measure", {})
            promoted = known.get("candidate", []) if known.get("alike") == alike else []
            promoted = promoted or self._adherence(before.run, dataset, night)
        return {
            "candidate": self._adherence(str(self._config.run_folder(night)), dataset, night),
            "promoted": promoted,
            "alike": alike,
            "beside": before.run if before else None,
        }

    def _adherence(self, run: str, dataset: str, night: str) -> list[float]:
        """Return the adherence of a run on what a night held out, a seed each.

        It is 0 without control, and 1 the photographs'.
        """
        how, found = self._config.measure, []
        for seed in how.seeds:
            request = Request(
                run=Path(run),
                dataset=dataset,
                split="held-out",
                held_out_by=self._config.run_folder(night),
                subset=None,
                samples=how.samples,
                base=None,
                seed=seed * how.samples,  # each sample has a seed of its own
                steps=how.steps,
                guidance_scale=how.guidance,
                batch_size=how.batch_size,
                clip=None,
                device=how.device,
                precision=how.precision,
                local_files_only=True,
            )
            evaluation, _ = evaluate_run(request)
            (row,) = (row for row in evaluation.rows if row.pictures == GENERATED)
            found.append(row.normalised)
        return found

    def _stated(self, dataset: str, night: str, before: Promotion | None) -> dict[str, Any]:
        stated = {**(self._config.train or {}), "dataset": dataset, "snapshot": night}
        stated["out"] = str(self._config.run_folder(night))
        if self._config.start == "promoted" and before is not None and before.run is not None:
            stated["start_from"] = before.run
        return stated

    def _to_hold_out(self, dataset: str, night: str, before: Promotion | None) -> list[str]:
        """Return the keys that a night does not train on.

        They are those that the promoted run held out, as far as they are still there. Where they
        are fewer than are to be measured, some are drawn from what came since, which neither run
        has trained on; and where none is left at all, from all samples.
        """
        opened = Dataset.open(dataset)
        keys = opened.view(snapshot=night).keys()
        known = set() if before is None or before.run is None else read_held_out(Path(before.run))
        held_out = [key for key in keys if key in known]
        came = keys
        if held_out and before is not None:
            old = Dataset.open(before.dataset).view(snapshot=before.night).keys()
            came = sorted(set(keys) - set(old))
        missing = self._config.measure.samples - len(held_out)
        share = len(came) // _TENTH or min(1, len(came) // 2)
        return [*held_out, *choose_held_out(came, max(0, min(missing, share)))]
