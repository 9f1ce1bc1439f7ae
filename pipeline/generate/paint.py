"""Pictures from trained ControlNets: the work of `generate`."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeAlias

import torch
from diffusers import UNet2DConditionModel
from pydantic import ValidationError

from captioning.blip import BlipSpec
from catalog.images import Image
from detectors.runtimes.on_torch import DTYPES
from pipeline.errors import UsageError
from pipeline.generate.config import GenerateConfig, check_request
from pipeline.generate.files import Made, Pass, joined, pass_of, write_row, write_summary
from pipeline.generate.inputs import Row, read_map, read_picture, read_rows
from training.errors import SamplingError
from training.model.base import Base, load_base
from training.model.choose import load_denoiser
from training.model.denoiser import Controlled, Denoiser
from training.run.folder import trained_as
from training.sample.automatic import Captioner, sample_automatic
from training.sample.controls import WHOLE, Conditioned, Control, check_window, picture_size
from training.sample.prompts import choose_prompt
from training.sample.repaint import Edit, check_edit
from training.sample.sampler import Sampled, Sampling, sample

Progress: TypeAlias = Callable[[int], AbstractContextManager[Callable[[], None]]]
"""Opens what shows this many steps; yields what is called at each of them."""


def make_pictures(config: GenerateConfig, progress: Progress) -> Made:
    """Sample a picture for each condition and seed, and write them; see `pipeline.generate.files`.

    Raises:
        UsageError: a request that means nothing, or a file that cannot be used.
        CatalogError, DetectorError, CaptionError: a dataset, or a detector's or the captioner's
            network, that is not here.
        TrainingError: a base, ControlNet or size that cannot be sampled with.
    """
    check_request(config)
    rows = read_rows(config)
    painter = Painter(config)
    painter.check(rows)
    config.out.mkdir(parents=True, exist_ok=True)
    made = []
    with progress(len(rows) * painter.steps) as on_step:
        for row in rows:
            made.append(painter.paint(row, on_step))
            write_row(config, row, made[-1])
    return write_summary(config, rows, made, painter.edit)


class Painter:
    """All networks and settings of a call; makes row after row."""

    def __init__(self, config: GenerateConfig) -> None:
        """Load what is small and may be missing first; raises as `make_pictures` does."""
        self._config = config
        self.edit = _read_edit(config)
        """What is repainted; None: whole pictures."""
        self._captioner: Captioner | None = None
        if config.prompt_mode == "automatic":
            self._captioner = load_captioner(config.captioner, config.device)
        self._base = _load_base(config)
        self._trained = [
            load_denoiser(Path(run), self._base, trains=trained_as(Path(run)))
            for run in config.controlnet
        ]
        self._unet = _trained_unet(config, self._base, self._trained)
        self._base.to(torch.device(config.device))
        for network in self._trained:
            network.to(config.device, DTYPES[config.precision])

    def check(self, rows: Sequence[Row]) -> None:
        """Raise SamplingError for the first row, window or edit that cannot be sampled."""
        check_window(self._config.window, self._config.steps)
        for row in rows:
            try:
                height, width = picture_size(row.hints, None, self._base.scale)
                if self.edit is not None:
                    check_edit(self.edit, height=height, width=width)
            except SamplingError as error:
                raise SamplingError(f"{row.name}: {error}") from error

    @property
    def steps(self) -> int:
        """Steps that a row takes."""
        batches = -(-len(self._config.seed) // self._config.batch_size)
        return self._config.steps * batches * (1 if self._captioner is None else 2)

    def paint(self, row: Row, on_step: Callable[[], None]) -> list[Pass]:
        """Return the passes over one row, what is to be shown last; calls `on_step` at each step.

        Raises:
            TrainingError: a size that cannot be sampled with.
        """
        config = self._config
        controls = _controls(config, row, self._trained)
        starts = range(0, len(config.seed), config.batch_size)
        batches = [config.seed[at : at + config.batch_size] for at in starts]
        return joined([self._paint(row, controls, seeds, on_step) for seeds in batches])

    def _paint(
        self,
        row: Row,
        controls: list[Control] | Conditioned,
        seeds: list[int],
        on_step: Callable[[], None],
    ) -> list[Pass]:
        config = self._config

        def draw(prompts: Sequence[str]) -> Sampled:
            return sample(
                self._base,
                controls,
                seeds=seeds,
                prompts=prompts,
                negative_prompt=config.negative_prompt,
                sampling=Sampling(
                    steps=config.steps, guidance_scale=config.cfg, weighting=config.weighting
                ),
                unet=self._unet,
                edit=self.edit,
                on_step=on_step,
            )

        if self._captioner is None:
            prompts = [_prompt(config, row)] * len(seeds)
            return [pass_of(config.prompt_mode, prompts, draw(prompts))]
        both = sample_automatic(draw, self._captioner, count=len(seeds))
        default = [choose_prompt("default")] * len(seeds)
        return [
            pass_of("default", default, both.first),
            pass_of("automatic", both.prompts, both.second),
        ]


def load_captioner(model: str, device: str) -> Captioner:
    """Load BLIP as a function of images.

    Args:
        model: a hub id that is pinned, or a folder, written as a path.
        device: for example ``cpu``.

    Raises:
        UsageError: the name is neither.
        CaptionError: the checkpoint is not here and cannot be had.
    """
    try:
        spec = BlipSpec(captioner="blip", model=model)
    except ValidationError as error:
        raise UsageError(f"--captioner {model}: {error.errors()[0]['msg']}") from error
    network = spec.load(device)

    def caption(images: Sequence[Image]) -> list[str]:
        prepared = [network.prepare(image) for image in images]
        starts = range(0, len(prepared), spec.batch_size)
        texts = [text for at in starts for text in network(prepared[at : at + spec.batch_size])]
        chosen = [spec.choose(None, text) for text in texts]
        return ["" if one is None else one.text for one in chosen]

    return caption


def _read_edit(config: GenerateConfig) -> Edit | None:
    if config.edit is None or config.mask is None:
        return None
    mask = read_map(config.mask, "--mask").max(axis=2)
    return Edit(source=read_picture(config.edit, "--edit"), mask=mask, paste=config.paste)


def _load_base(config: GenerateConfig) -> Base:
    return load_base(
        config.base,
        revision=config.revision,
        local_files_only=config.local_files_only,
        dtype=DTYPES[config.precision],
        vae=config.vae,
    )


def _trained_unet(
    config: GenerateConfig, base: Base, trained: Sequence[Denoiser]
) -> UNet2DConditionModel | None:
    """Return the UNet that was trained beside a ControlNet, if one was.

    Raises:
        UsageError: several were, or a network of another method has company or a window.
    """
    others = [run for run, one in zip(config.controlnet, trained, strict=True) if _is_whole(one)]
    steered = config.window != WHOLE or config.scale or config.weighting != "even"
    if others and (len(trained) > 1 or steered):
        raise UsageError(
            f"--controlnet {others[0]} is no ControlNet but a whole UNet that takes its condition "
            "in every step: it goes alone, without --window, --scale and --weighting"
        )
    unets = [one.unet for one in trained if one.unet is not base.unet]
    if len(unets) > 1:
        raise UsageError("several of the --controlnet trained the UNet too: only one can be used")
    return unets[0] if unets else None


def _controls(
    config: GenerateConfig, row: Row, trained: Sequence[Denoiser]
) -> list[Control] | Conditioned:
    if _is_whole(trained[0]):
        return Conditioned(denoiser=trained[0], hints=row.hints)
    scales = config.scale or [1.0]
    scales = scales * len(trained) if len(scales) == 1 else scales
    return [
        Control(
            controlnet=one.controlnet,
            hints=[hint],
            scale=scale,
            window=config.window,
            mid_only=one.mid_only,
        )
        for one, hint, scale in zip(trained, row.hints, scales, strict=True)
        if isinstance(one, Controlled)
    ]


def _is_whole(trained: Denoiser) -> bool:
    return not isinstance(trained, Controlled)


def _prompt(config: GenerateConfig, row: Row) -> str:
    """Return the prompt of a single pass; mode user without a text takes the dataset's caption."""
    if config.prompt_mode == "user" and config.prompt is None:
        return choose_prompt("user", row.caption)
    return choose_prompt(config.prompt_mode, config.prompt)
