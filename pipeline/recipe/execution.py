"""How a build is run: what may move a bit is in each commit's environment, no recipe holds it."""

from pydantic import BaseModel, ConfigDict, Field

from catalog.cpus import usable_cpus

_AN_HOUR = 3600.0
_AN_IMAGE = 15.0  # seconds; the slowest networks take seven, on one core


class Execution(BaseModel):
    """Resources and patience of one build; flags override what a recipe says here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actors: int | None = Field(
        None, ge=1, description="Ray actors at most; default as many as the cluster has room for"
    )
    min_actors: int = Field(1, ge=1, description="Ray actors that are kept even when idle")
    cpus_per_actor: float | None = Field(
        None,
        gt=0,
        description="CPUs that Ray reserves for an actor; default 1, on cuda all that the nodes "
        "have beside an actor's share of a GPU",
    )
    device: str = Field("cpu", pattern=r"^(cpu|cuda)$", description="of the networks")
    gpus_per_actor: float | None = Field(
        None,
        gt=0,
        description="GPUs, or a share of one, that Ray reserves where the device is cuda; default "
        "a share for each four CPUs that the nodes have beside a GPU, a quarter at least",
    )
    memory_per_actor: float | None = Field(
        None,
        gt=0,
        description="memory that Ray reserves for an actor, so that no node holds more than fit; "
        "GiB, default none is counted",
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="threads that decode, draw and encode beside the networks, in each worker; "
        "default one a CPU, of those that an affinity or a container's quota leaves",
    )
    network_threads: int = Field(
        1, ge=1, description="threads inside a network on the CPU; another number may move bits"
    )
    caption_cache: str | None = Field(
        None,
        description="folder or URI of generated captions, shared by builds; default that of "
        "CONTROLNET_FACTORY_CAPTIONS, else caption-cache beside the dataset",
    )
    split_captions: bool = Field(
        False, description="on Ray, generate captions in actors of their own, ahead of the others"
    )
    caption_actors: int | None = Field(
        None, ge=1, description="actors that caption, at most; default as many as the others"
    )
    units_in_hand: int = Field(
        2, ge=1, le=8, description="units a worker has begun: one decodes while another encodes"
    )
    wave: int = Field(
        10_000, ge=1, description="units that Ray schedules at a time; actors start anew each wave"
    )
    retries: int = Field(2, ge=0, description="times that failed units are tried again in a build")
    deaths_suspicious: int = Field(
        3, ge=1, description="deaths in a unit after which its images are looked at one by one"
    )
    deaths_allowed: int = Field(
        6, ge=2, description="deaths in a unit after which it is given up, as a failed one"
    )
    image_timeout: float = Field(
        300,
        ge=0,
        description="time that a step of the work on one image may take on a CPU, after which the "
        "process ends and the image is tried alone; seconds, 0 for no limit",
    )
    failures_before_leaving: int = Field(
        3,
        ge=2,
        description="units in a row that a worker fails for reasons of its place, after which it "
        "leaves and another is started",
    )
    max_failed_share_of_a_unit: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of a unit's images that may fail with one class of error; above it the "
        "place is suspected and the unit not committed",
    )
    max_failed_units: float = Field(
        0.01, ge=0, le=1, description="share of units that may fail before the build stops"
    )
    no_progress_timeout: float | None = Field(
        None,
        ge=0,
        description="time in which no unit ends, after which a build on Ray stops; seconds, 0 for "
        "no limit; default an hour, or more where units are large: `patience`",
    )
    reuse: str | None = Field(
        None, description="a dataset of which those maps are taken that would be the same"
    )
    max_failed_share: float = Field(
        0.01, ge=0, le=1, description="share of failed images above which the exit code is 3"
    )

    def patience(self, images: int) -> float:
        """Return the seconds in which a unit must end, for units of so many images; 0 for any."""
        if self.no_progress_timeout is not None:
            return self.no_progress_timeout
        return max(_AN_HOUR, _AN_IMAGE * images * self.units_in_hand)  # all may end at once

    @property
    def worker_threads(self) -> int:
        """Threads of a worker beside the networks."""
        return self.threads or usable_cpus()
