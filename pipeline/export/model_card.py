"""The card of a trained network, from what its run recorded: nothing in it is written by hand."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import ModelCardData

from catalog.dataset.dataset import Dataset
from detectors.base import Spec
from detectors.weights.checkpoints import CHECKPOINTS
from training.model.base import pipeline_of
from training.run.folder import read_settings
from training.settings.phases import Phase
from training.watch.run_plots import run_convergence
from training.watch.signals import ProbeRecord, probes, read_references

MADE_BY = "made by: controlnet-factory"
"""What every card says."""

_TEMPLATE = Path(__file__).with_name("model_card.md.jinja")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a card is of.

    Attributes:
        run: the run's folder.
        step: of the network, in optimizer steps.
        dataset: that it was trained on.
        spec: the detector that made its condition.
        unet: whether a UNet goes with it.
        pictures: names of files beside the card, and what they show.
    """

    run: Path
    step: int
    dataset: Dataset
    spec: Spec
    unet: bool
    pictures: Mapping[str, str]


def model_card(subject: Subject) -> str:
    """Return the text of a README.md, front matter included."""
    settings = read_settings(subject.run)
    assert settings is not None, subject.run
    made, identity = dict(settings["config"]), settings["identity"]
    if local := _is_local(made["base"]):
        made["base"] = Path(made["base"]).name  # where it lies here tells nobody anything
    title = f"{made['method']} {made['condition']}"
    template = jinja2.Template(
        _TEMPLATE.read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined
    )
    config = subject.run / "config.json"
    network = json.loads(config.read_bytes()) if config.is_file() else {}
    body = template.render(
        pipeline=pipeline_of(network),
        title=title,
        made=made,
        unet=subject.unet,
        pictures=subject.pictures,
        detector=getattr(subject.spec, "detector", subject.spec.condition),
        facts=_facts(subject, made, identity),
        judged=_judged(subject),
        licences=_licences(subject.spec, made["base"]),
    )
    front = ModelCardData(
        base_model=None if local else made["base"],
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["controlnet", "stable-diffusion", "diffusers", str(made["condition"])],
        inference=False,
    )
    return f"---\n{front}\n---\n\n{body.strip()}\n"


def _is_local(base: str) -> bool:
    return Path(base).is_dir() or base.count("/") != 1


def _facts(
    subject: Subject, made: Mapping[str, Any], identity: Mapping[str, Any]
) -> dict[str, Any]:
    recipe = subject.dataset.recipe
    phases = [Phase.model_validate(phase) for phase in made["phases"]]
    seen = subject.step * int(identity["samples_per_step"])
    of_snapshot = f" of snapshot {made['snapshot']}" if made.get("snapshot") else ""
    return {
        "base": f"`{made['base']}`, weights {identity['base'][:16]}",
        "dataset": f"`{recipe.get('name', 'dataset')}`, fingerprint {identity['dataset'][:16]}, "
        f"{identity.get('rows', 0):,} samples ({made['subset'] or 'all'}{of_snapshot}), "
        f"{identity.get('held_out', 0):,} more held out",
        "steps": f"{subject.step:,} optimizer steps of {identity['samples_per_step']:,} samples "
        f"({seen:,} images)",
        "phases": ", ".join(_phase(phase) for phase in phases),
        "optimizer": f"{made['optimizer']}, learning rate {made['learning_rate']:g} "
        f"({made['schedule']}), weight decay {made['weight_decay']:g}",
        "precision": {"no": "fp32"}.get(made["mixed_precision"], made["mixed_precision"]),
        "prompts left out": f"{made['prompt_dropout']:.0%}",
        "made by": f"controlnet-factory {version('controlnet-factory')}, seed {made['seed']}",
    }


def _phase(phase: Phase) -> str:
    return phase.trains if phase.until is None else f"{phase.trains} until {phase.until}"


def _judged(subject: Subject) -> str | None:
    """Say what the probe of the step found; None where there is none up to it."""
    found = [record for record in probes(subject.run).read() if record.step <= subject.step]
    references = read_references(subject.run)
    if not found or references is None:
        return None
    last: ProbeRecord = found[-1]
    levels = references.references
    told = (
        f"{references.metric} between the condition and what is found again in the pictures of "
        f"{len(references.keys)} held-out samples, at step {last.step:,}: **{last.adherence:.3f}** "
        f"(no control {levels.baseline:.3f}, the photographs themselves {levels.real:.3f})."
    )
    converged = run_convergence(subject.run)
    if converged is not None and converged.step <= subject.step:
        told += (
            f" It began to obey between steps {converged.before:,} and {converged.step:,}: the "
            "sudden convergence of the paper."
        )
    return told


def _licences(spec: Spec, base: str) -> Sequence[str]:
    lines = [f"these weights: derived from the base `{base}`; its licence holds for them"]
    checkpoint = getattr(spec.network, "checkpoint", None)
    if checkpoint in CHECKPOINTS:
        known = CHECKPOINTS[checkpoint]
        lines.append(f"the detector's checkpoint `{checkpoint}` ({known.what}): {known.licence}")
    lines.append("the images and captions of the dataset: see the dataset's card")
    return lines
