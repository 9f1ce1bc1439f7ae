"""How a build is run: what may move a bit is in each commit's environment, no recipe holds it."""

import os

from pydantic import BaseModel, ConfigDict, Field


class Execution(BaseModel):
    """Resources of one build."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actors: int | None = Field(None, ge=1, description="Ray actors at most; default one a CPU")
    cpus_per_actor: float = Field(1.0, gt=0, description="CPUs that Ray reserves for an actor")
    device: str = Field("cpu", pattern=r"^(cpu|cuda)$", description="of the networks")
    gpus_per_actor: float = Field(
        1.0, gt=0, description="GPUs, or a share of one, that Ray reserves where the device is cuda"
    )
    threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        description="threads that decode, draw and encode beside the networks, in each worker",
    )
    network_threads: int = Field(
        1, ge=1, description="threads inside a network on the CPU; another number may move bits"
    )
    reuse: str | None = Field(
        None, description="a dataset of which maps are taken where only thresholds differ"
    )
    max_failed_share: float = Field(
        0.01, ge=0, le=1, description="share of failed images above which the exit code is 3"
    )
