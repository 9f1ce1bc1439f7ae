"""How a build is run: changes no byte of the dataset, so it stays out of the fingerprint."""

import os

from pydantic import BaseModel, ConfigDict, Field


class Execution(BaseModel):
    """Resources of one build."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actors: int | None = Field(None, ge=1, description="Ray actors at most; default one a CPU")
    cpus_per_actor: float = Field(1.0, gt=0, description="CPUs that Ray reserves for an actor")
    threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        description="threads that decode and encode beside the detectors, in each worker",
    )
    max_failed_share: float = Field(
        0.01, ge=0, le=1, description="share of failed images above which the exit code is 3"
    )
