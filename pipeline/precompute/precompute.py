"""Precompute latents: which units are left, encoded here or on Ray, then folded."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow.compute as pc

from catalog.dataset.commits import Commit, read_commits
from catalog.dataset.dataset import Dataset
from catalog.dataset.latents import Latents, LatentsFolder, UnitLatents
from pipeline.precompute.encoder import Encoder, Precompute, identity

Executor: TypeAlias = Callable[[Precompute, Sequence[str]], Iterator[UnitLatents]]
"""Encodes units by their ids; yields each as it is committed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precomputed:
    """What a call did.

    Attributes:
        folder: URI of the latents.
        units: units encoded by this call.
        units_done: units that are committed now, of those asked for.
        images: in those.
        bytes: of the files that hold them.
    """

    folder: str
    units: int
    units_done: int
    images: int
    bytes: int


def precompute(
    request: Precompute,
    *,
    executor: Executor,
    subset: str | None = None,
    progress: Callable[[int, int], None] = lambda done, units: None,
) -> Precomputed:
    """Encode the units of a finished dataset that are not encoded yet; again is the resume.

    Args:
        request: what to encode, and with what.
        executor: `run_here`, or `pipeline.precompute.on_ray.run_on_ray`.
        subset: only the units that hold its samples.
        progress: told how many units are done, of how many, at first and after each.

    Raises:
        CatalogError: there is no such dataset or subset, or it is not finished.
        TrainingError: the base is not here, or a sample cannot be encoded.
    """
    dataset = Dataset.open(request.dataset)
    shards = pc.unique(dataset.view(subset, columns=("shard",)).table["shard"]).to_pylist()
    every = read_commits(dataset.uri)
    units = [unit for unit in every if unit.shard.name in set(shards)]
    folder = LatentsFolder(dataset.uri, identity(request))
    folder.claim()
    done = {unit.unit_id for unit in folder.committed(units)}
    pending = [unit.unit_id for unit in units if unit.unit_id not in done]
    progress(len(done), len(units))
    for count, _ in enumerate(executor(request, pending) if pending else (), len(done) + 1):
        progress(count, len(units))
    _fold(folder, every, changed=bool(pending))
    made = folder.committed(units)
    return Precomputed(
        folder=folder.uri,
        units=len(pending),
        units_done=len(made),
        images=sum(unit.images for unit in made),
        bytes=sum(unit.file.bytes for unit in made),
    )


def run_here(request: Precompute, pending: Sequence[str]) -> Iterator[UnitLatents]:
    """Encode units in this process."""
    encoder = Encoder(request)
    for unit in pending:
        yield encoder.run(unit)


def _fold(folder: LatentsFolder, units: Sequence[Commit], *, changed: bool) -> Latents:
    held = None if changed else folder.open()
    return held or folder.fold(units)
