"""What `generate` was asked for, and which requests make no sense."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from captioning.weights import BASE as BLIP
from pipeline.errors import UsageError
from training.sample.prompts import DEFAULT_PROMPT_VERSION, PromptMode

Precision = Literal["fp32", "fp16", "bf16"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class GenerateConfig(BaseModel):
    """All settings of a call of `generate`; they are written beside the pictures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    controlnet: list[str] = Field(min_length=1, description="folders of runs or checkpoints")
    base: str = Field(description="folder in diffusers' layout, or a hub id")
    revision: str | None = Field(None, description="of the base on the hub")
    vae: str | None = Field(None, description="autoencoder in place of the base's")
    local_files_only: bool = Field(False, description="never ask the hub")
    out: Path = Field(description="folder for the pictures")

    image: list[Path] = Field(default_factory=list, description="condition maps")
    source: list[Path] = Field(default_factory=list, description="pictures to detect them in")
    detect: list[str] = Field(default_factory=list, description="detectors, one a ControlNet")
    overrides: list[str] = Field(default_factory=list, description="detector.field=value")
    resolution: int = Field(512, ge=64, description="short side of a source; pixels")
    dataset: str | None = Field(None, description="folder or URI to take conditions from")
    subset: str | None = Field(None, description="of the dataset")
    split: Literal["all", "held-out"] = Field("all", description="rows of the dataset")
    condition: list[str] = Field(
        default_factory=list, description="of the dataset's, one a network"
    )
    count: int = Field(4, ge=1, description="first samples of the dataset")

    scale: list[float] = Field(default_factory=list, description="factors, one a ControlNet")
    window: tuple[float, float] = Field((0.0, 1.0), description="shares of the steps, 0..1")
    weighting: Literal["even", "guess", "resolution"] = "even"

    prompt_mode: PromptMode = "default"
    prompt: str | None = Field(None, description="of mode user")
    negative_prompt: str = ""
    default_prompt_version: str = DEFAULT_PROMPT_VERSION
    captioner: str = Field(BLIP, description="of mode automatic: hub id, or a folder as a path")

    edit: Path | None = Field(None, description="picture of which a part is painted anew")
    mask: Path | None = Field(None, description="white repaints")
    paste: bool = Field(True, description="take kept pixels from the edited picture")

    batch_size: int = Field(1, ge=1, description="seeds at once; 1 gives equal bits in any company")
    seed: list[Seed] = Field(default_factory=lambda: [0], min_length=1)
    steps: int = Field(20, ge=1, le=999, description="of DDIM")
    cfg: float = Field(9.0, ge=0, description="classifier-free guidance scale")
    device: str = "cpu"
    precision: Precision = "fp32"


def check_request(config: GenerateConfig) -> None:
    """Raise UsageError, in terms of the flags, for a combination that means nothing."""
    _check_origin(config)
    _check_pairs(config)
    if (config.mask is None) != (config.edit is None):
        given, lacking = ("mask", "edit") if config.mask else ("edit", "mask")
        raise UsageError(f"--{given} needs --{lacking}: a picture, and what of it to repaint")
    first, last = config.window
    if not 0 <= first < last <= 1:
        raise UsageError(
            f"--window {first:g} {last:g}: expected shares of the steps with 0 <= first < last <= 1"
        )
    captions = config.dataset is not None and config.prompt_mode == "user"
    if config.prompt_mode == "user" and config.prompt is None and not captions:
        raise UsageError("--prompt-mode user needs --prompt TEXT, or --dataset for its captions")
    if config.prompt_mode != "user" and config.prompt is not None:
        raise UsageError(f"--prompt-mode {config.prompt_mode} takes no --prompt: leave one out")


def _check_origin(config: GenerateConfig) -> None:
    """Conditions come from maps, from pictures, or from a dataset."""
    given = [
        flag
        for flag, value in (
            ("--image", config.image),
            ("--source", config.source),
            ("--dataset", config.dataset),
        )
        if value
    ]
    if len(given) != 1:
        raise UsageError(
            f"conditions come from --image MAP, --source PICTURE with --detect NAME, or "
            f"--dataset FOLDER: give one of the three, got {' and '.join(given) or 'none'}"
        )
    if bool(config.source) != bool(config.detect):
        raise UsageError("--source and --detect go together: --source photo.jpg --detect canny")
    if config.overrides and not config.detect:
        raise UsageError("--set changes a detector: give --detect NAME")
    if config.dataset is None and (config.subset or config.condition or config.split != "all"):
        raise UsageError(
            "--subset, --split and --condition choose from a dataset: give --dataset FOLDER"
        )
    if config.subset is not None and config.split == "held-out":
        raise UsageError("--subset goes with --split all: the run knows which rows it held out")


def _check_pairs(config: GenerateConfig) -> None:
    """Several ControlNets each have their own map, detector, condition and scale, in order."""
    networks = len(config.controlnet)
    if networks > 1 and config.image and len(config.image) != networks:
        raise UsageError(
            f"{networks} --controlnet but {len(config.image)} --image: "
            "the first map goes to the first ControlNet, and so on; give as many"
        )
    for flag, values in (("--detect", config.detect), ("--condition", config.condition)):
        if values and len(values) != networks:
            raise UsageError(
                f"{networks} --controlnet but {len(values)} {flag}: repeat it, one a ControlNet"
            )
    if len(config.scale) > 1 and len(config.scale) != networks:
        raise UsageError(
            f"{networks} --controlnet but {len(config.scale)} --scale: give one each, or one"
        )
