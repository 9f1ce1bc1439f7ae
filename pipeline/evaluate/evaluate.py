"""From a run's folder and a dataset to an evaluation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from catalog.dataset.dataset import Dataset
from catalog.images import Image
from detectors.runtimes.on_torch import DTYPES
from pipeline.errors import UsageError
from pipeline.evaluate.rows import held_out_rows
from pipeline.recipe.made_by import condition_spec
from training.data.view import SampleView
from training.measure.adherence import AdherenceProbe, probe_samples
from training.measure.evaluation import Evaluation, evaluate
from training.measure.picture_quality import CLIP, load_clip, load_inception
from training.measure.redetect import Redetector
from training.model.base import load_base
from training.model.choose import load_denoiser
from training.run.folder import SETTINGS, read_settings, run_of, trained_as
from training.sample.for_probes import controlled, uncontrolled

Precision = Literal["fp32", "fp16", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to evaluate, and how.

    Attributes:
        run: folder of a run, or of one of its checkpoints.
        dataset: URI.
        split: the rows that the run held out, or all.
        subset: of the dataset; only with all rows.
        samples: how many at most, the first of the split.
        base: in place of the run's.
        seed: of the first picture's noise; the others follow.
        steps: of DDIM.
        guidance_scale: strength of classifier-free guidance.
        batch_size: pictures made at once.
        clip: CLIP model, a folder or a hub id; None for the default.
        device: of all networks.
        precision: of those that make pictures.
        local_files_only: use only what is on this machine.
        held_out_by: run whose held-out rows are taken; None for this one.
    """

    run: Path
    dataset: str
    split: Literal["held-out", "all"]
    subset: str | None
    samples: int
    base: str | None
    seed: int
    steps: int
    guidance_scale: float
    batch_size: int
    clip: str | None
    device: str
    precision: Precision
    local_files_only: bool
    held_out_by: Path | None = None


def evaluate_run(request: Request) -> tuple[Evaluation, Image]:
    """Evaluate a run; return the figures, and a grid of pictures.

    Raises:
        UsageError: there is no run, or no such split.
        CatalogError: there is no such dataset or subset.
        DetectorError: the condition's network is not here.
        TrainingError: base, ControlNet or samples do not do.
    """
    settings = run_settings(request.run)
    config = settings["config"]
    trains = trained_as(request.run)
    dataset = Dataset.open(request.dataset)
    view = choose_rows(request, dataset)
    redetector = Redetector(condition_spec(dataset, config["condition"]), device=request.device)
    samples = probe_samples(view, config["condition"], redetector, count=request.samples)
    base = load_base(
        request.base or config["base"],
        revision=config["revision"],
        local_files_only=request.local_files_only,
        dtype=DTYPES[request.precision],
        vae=None if request.base else config.get("vae"),
    )
    base.to(torch.device(request.device))
    denoiser = load_denoiser(request.run, base, trains=trains).to(request.device).eval()
    steps, scale = request.steps, request.guidance_scale
    low = request.precision != "fp32"  # as in training: what learned stays fp32, products do not
    with torch.autocast(request.device, DTYPES[request.precision], enabled=low):
        return evaluate(
            AdherenceProbe(samples, redetector, seed=request.seed),
            controlled(base, denoiser, steps=steps, guidance_scale=scale),
            uncontrolled(base, steps=steps, guidance_scale=scale),
            base,
            clip=load_clip(request.clip or CLIP, request.device),
            inception=load_inception(request.device),
            settings=_record(request, config, view.name, len(samples)),
            batch_size=request.batch_size,
        )


def evaluation_folder(folder: Path) -> Path:
    """Return where an evaluation goes: never into a checkpoint, whose files are hashed."""
    run = run_of(folder)
    if run is None or run == folder:
        return folder / "evaluation"
    return run / "evaluation" / folder.name


def run_settings(folder: Path) -> dict[str, Any]:
    """Return the train.json of a run, by its folder or that of a checkpoint in it.

    Raises:
        UsageError: it is neither.
    """
    run = run_of(folder)
    settings = None if run is None else read_settings(run)
    if settings is None:
        raise UsageError(
            f"--run {folder} is no run: neither it nor its checkpoint has a {SETTINGS}"
        )
    return settings


def choose_rows(request: Request, dataset: Dataset) -> SampleView:
    """Return the rows to measure on.

    Raises:
        UsageError: the run held nothing out, or not of this dataset.
        DatasetError: there is no such subset.
    """
    if request.split == "all":
        return dataset.view(request.subset)
    if request.subset is not None:
        raise UsageError("--subset goes with --split all; held-out rows are those of the run")
    return held_out_rows(request.held_out_by or request.run, dataset)


def _record(request: Request, config: dict[str, Any], rows: str, count: int) -> dict[str, Any]:
    return {
        "run": str(request.run),
        "dataset": request.dataset,
        "rows": rows,
        "samples": count,
        "condition": config["condition"],
        "base": request.base or config["base"],
        "seed": request.seed,
        "precision": request.precision,
        "steps": request.steps,
        "guidance_scale": request.guidance_scale,
    }
