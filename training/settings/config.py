"""What one training run is."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.settings.phases import FULL, Phase, check_phases

MixedPrecision = Literal["no", "fp16", "bf16"]
HintEncoder = Literal["released", "paper"]

Method = Literal["controlnet", "concat"]
"""``concat``: the baseline of Fig. 20, the whole UNet trained with the condition as input."""

Optimizer = Literal["adamw", "adamw_fused", "adamw_8bit"]
Schedule = Literal["constant", "cosine"]


class TrainConfig(BaseModel):
    """The settings of one training run; an unknown key raises.

    Steps are optimizer steps everywhere, never micro-steps. One step reads
    ``batch_size * gradient_accumulation * processes`` samples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str = Field(description="URI of the dataset.")
    subset: str | None = Field(
        default=None, description="Name of a nested subset, such as 1k; null for every row."
    )
    snapshot: str | None = Field(
        default=None, description="Name of a snapshot; null for the dataset as it is now."
    )
    condition: str = Field(description="Name of the control to train on, such as canny.")
    base: str = Field(
        description="Stable Diffusion or SDXL: a folder in diffusers layout, or a hub id."
    )
    revision: str | None = Field(
        default=None, description="Commit, tag or branch of a hub id; null for its main branch."
    )
    vae: str | None = Field(
        default=None,
        description="Autoencoder in place of the base's, such as one of SDXL's that fits into "
        "fp16: a folder, or a hub id.",
    )
    start_from: str | None = Field(
        default=None,
        description="Run or checkpoint folder whose ControlNet training starts from, trained "
        "beside the same base's UNet; null for a copy of the base's encoder.",
    )
    local_files_only: bool = Field(
        default=False, description="Use only a hub id's files that are already on this machine."
    )
    out: str = Field(
        description="Run folder, on a disk that all processes see, not in a bucket. The same "
        "command again resumes it."
    )
    steps: int = Field(gt=0, description="Length of the run, in optimizer steps.")
    batch_size: int = Field(
        default=4, gt=0, description="Samples a process takes through the networks at once."
    )
    gradient_accumulation: int = Field(
        default=1, gt=0, description="Batches whose gradients are averaged into one optimizer step."
    )
    method: Method = Field(default="controlnet", description="controlnet, or the concat baseline.")
    phases: tuple[Phase, ...] = Field(
        default=FULL, description="What learns, and from when; see training.settings.phases."
    )
    learning_rate: float = Field(
        default=1e-5, gt=0, le=1e30, description="AdamW's rate, a step, constant (paper 4.3: 1e-5)."
    )
    warmup: int = Field(
        default=0, ge=0, description="Optimizer steps over which the rate rises from nothing."
    )
    schedule: Schedule = Field(
        default="constant",
        description="Of the rate behind the warm-up: constant, or falling to 0 over the steps as "
        "half a cosine.",
    )
    max_grad_norm: float = Field(
        default=1.0, ge=0, description="Gradients are scaled down to this norm; 0 for none."
    )
    optimizer: Optimizer = Field(
        default="adamw", description="adamw_8bit needs bitsandbytes and a CUDA device."
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations again in the backward pass: less memory."
    )
    ema: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Decay a step of averaged weights, which are then published; null for none "
        "(paper: none).",
    )
    weight_decay: float = Field(
        default=1e-2,
        ge=0,
        description="AdamW's decay, a fraction of weight x learning rate a step.",
    )
    prompt_dropout: float = Field(
        default=0.5, ge=0, le=1, description="Share of prompts replaced by '' (paper 3.3: 0.5)."
    )
    latents: Literal["auto", "never", "always"] = Field(
        default="auto",
        description="Whether to train on what `precompute` made of the samples: where it fits, "
        "never, or always, so that it is an error where it does not. A resumed run keeps to what "
        "it began with.",
    )
    aspect_buckets: bool = Field(
        default=True,
        description="Of a dataset of several sizes, let the samples of a step have one size.",
    )
    crop: int | None = Field(
        default=None,
        gt=0,
        description="Side of a random square cut out of image and condition, in pixels; null for "
        "none.",
    )
    flip: bool = Field(
        default=False,
        description="Mirror half of the samples; refused for conditions that tell left from right.",
    )
    held_out: int | None = Field(
        default=None,
        ge=0,
        description="Samples of the whole dataset kept out of training, to measure on; null for "
        "16, or a tenth of the samples where that is less.",
    )
    max_damaged_share: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Share of the distinct samples read that may be damaged, and are passed over; "
        "up to 10 may be in any case. 0 ends the run at the first.",
    )
    probe_every: int = Field(
        default=1000,
        ge=0,
        description="Optimizer steps between probes of the held-out samples, beside one before "
        "the first and one behind the last; 0 for none at all.",
    )
    probe_samples: int = Field(
        default=16, ge=1, description="Held-out samples that a probe makes pictures of, at most."
    )
    probe_steps: int = Field(
        default=20, ge=1, le=999, description="DDIM steps of a probe's pictures."
    )
    probe_guidance: float = Field(
        default=9.0, ge=0, description="Classifier-free guidance scale of a probe's pictures."
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="Seed of order, noise, dropout and new weights."
    )
    num_workers: int = Field(
        default=0, ge=0, description="Processes that read and decode; 0 reads in the training one."
    )
    cache: str | None = Field(
        default=None,
        description="Local folder that keeps what is read of a remote dataset, so that a later "
        "epoch or run reads it there; as large as what is trained on. null for none.",
    )
    mixed_precision: MixedPrecision = Field(
        default="no", description="Type of activations and locked weights; trained ones stay fp32."
    )
    checkpoint_every: int = Field(
        default=1000,
        gt=0,
        description="Optimizer steps between checkpoints; the last step has one.",
    )
    keep_last: int | None = Field(
        default=None, ge=1, description="Newest checkpoints kept, with the best; null for all."
    )
    wandb: str | None = Field(
        default=None,
        description="Weights & Biases project that gets what TensorBoard gets; null for none. "
        "Needs wandb installed.",
    )
    log_every: int = Field(default=10, gt=0, description="Optimizer steps between log lines.")
    hint_encoder: HintEncoder = Field(
        default="released",
        description="Network that encodes the condition: the released eight 3x3 convolutions, or "
        "the 4x4 ones that the paper describes.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_phases(self.phases)
        waits = any(phase.until == "converged" for phase in self.phases)
        if waits and (not self.probe_every or self.held_out == 0):
            raise ValueError(
                "phases wait until converged, which probes of held-out samples find: "
                "give probe_every and held_out"
            )
        if self.method == "concat" and self.phases != FULL:
            raise ValueError("method concat trains the whole UNet from the start: leave phases out")
        if self.method == "concat" and self.start_from is not None:
            raise ValueError("method concat starts from the base: leave start_from out")
        return self
