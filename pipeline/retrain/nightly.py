"""What a schedule does each night: nightly.yaml."""

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from catalog import storage
from catalog.source.ranking import parse_size
from pipeline.recipe.execution import Execution
from pipeline.retrain.gate import Limits

HELD_OUT = 64


class Measure(BaseModel):
    """How a night's ControlNet is measured, on pictures that no night trains on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    samples: int = Field(
        HELD_OUT, ge=1, description="held-out samples: each night takes over the promoted one's"
    )
    seeds: tuple[int, ...] = Field(
        (0, 1, 2), min_length=1, description="of the noise; their scatter is the gate's noise"
    )
    steps: int = Field(20, ge=1, le=999, description="of DDIM")
    guidance: float = Field(9.0, ge=0, description="classifier-free guidance scale")
    batch_size: int = Field(8, ge=1, description="pictures made at once")
    device: str = Field("cpu", pattern=r"^(cpu|cuda)$", description="of all networks")
    precision: Literal["fp32", "fp16", "bf16"] = Field(
        "fp32", description="of what makes the pictures"
    )

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("expected different seeds, 0 or larger")
        return seeds


class Latents(BaseModel):
    """What is encoded ahead of the training, beside the shards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Literal["fp32", "fp16", "bf16"] = Field("fp32", description="of the networks")
    stored: Literal["fp32", "fp16"] = Field("fp16", description="of the numbers kept")
    device: str = Field("cpu", pattern=r"^(cpu|cuda)$", description="of the networks")
    batch_size: int = Field(8, ge=1, description="images at once")


class Keep(BaseModel):
    """How long nights stay; what is promoted stays in any case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nights: int = Field(14, ge=1, description="newest nights whose snapshot and run are kept")
    days: float = Field(0, ge=0, description="younger nights are kept, however many they are")


class Nightly(BaseModel):
    """Everything about one schedule; two schedules have two folders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str = Field(description="folder or URI of what the schedule keeps, and of its dataset")
    recipe: str = Field(description="a shipped recipe, or a file")
    overrides: tuple[str, ...] = Field(
        (), alias="set", description="of the recipe, as --set of build: image.resolution=64"
    )
    images: tuple[str, ...] = Field(min_length=1, description="the whole source, looked at anew")
    include: tuple[str, ...] = Field((), description="glob patterns, as --include of build")
    exclude: tuple[str, ...] = Field((), description="glob patterns, as --exclude of build")
    labels: str | None = Field(None, description="ground truth, in a tree like the images'")
    allow_paths: tuple[str, ...] = Field((), description="as --allow-paths of build")
    removals: str | None = Field(
        None, description="file or URI of keys or sha256s to take down, one a line; may be absent"
    )
    execution: Execution = Field(default_factory=Execution, description="as of build")
    subsets: tuple[str, ...] = Field((), description="sizes to cut, where the dataset has as many")
    latents: Latents | None = Field(None, description="null: nothing is encoded ahead")
    train: dict[str, Any] | None = Field(
        None, description="settings of the training, as of train; null: only the dataset"
    )
    start: Literal["promoted", "recipe"] = Field(
        "promoted",
        description="promoted: from the promoted run, where there is one; recipe: as of train",
    )
    ray_workers: int | None = Field(None, ge=1, description="processes of the training on Ray")
    runs: str | None = Field(
        None, description="local folder of the runs; default runs/ in the folder, if that is local"
    )
    measure: Measure = Field(default_factory=Measure)
    gate: Limits = Field(default_factory=Limits)
    keep: Keep = Field(default_factory=Keep)
    lease_lapses_after: float = Field(
        600, ge=1, description="seconds without a sign of life after which a night is taken over"
    )
    webhook: str | None = Field(None, description="URL that gets the summary as JSON, by POST")

    @field_validator("subsets")
    @classmethod
    def _sizes(cls, subsets: tuple[str, ...]) -> tuple[str, ...]:
        for one in subsets:
            parse_size(one)
        return subsets

    @field_validator("train")
    @classmethod
    def _not_ours(cls, train: dict[str, Any] | None) -> dict[str, Any] | None:
        ours = {"dataset", "out", "snapshot", "held_out"} & set(train or {})
        if ours:
            raise ValueError(f"{', '.join(sorted(ours))}: each night's own, leave it out")
        return train

    def path(self, *names: str) -> str:
        """Return where something in the folder lies: a URI, or a local path from the root."""
        local = storage.local_path(self.folder)
        root = self.folder if local is None else os.path.abspath(local)
        return storage.join(root, *names) if names else root

    def run_folder(self, night: str) -> Path:
        """Return where a night's run lies; raises ValueError where nothing local is known."""
        root = self.runs or storage.local_path(self.path("runs"))
        if root is None:
            raise ValueError(
                f"the folder {self.folder} is on an object storage, and runs need a disk: "
                "say with runs: which"
            )
        return Path(root) / night
