"""A scan on Ray: a chunk is a task; rows go to the storage, only counts come back."""

from collections.abc import Iterator, Sequence
from itertools import islice

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.cluster.connect import connected
from pipeline.errors import BuildError
from pipeline.scan.chunks import Chunk, scan_chunk, scan_here

_FEW = 4  # chunks that one process reads sooner than Ray starts
_AHEAD = 2  # tasks for each CPU: one runs, one waits


def scan_on_ray(chunks: Sequence[Chunk], perceptual: bool) -> Iterator[int]:
    """Scan chunks on the cluster that a build would use, or here where they are few.

    Raises:
        BuildError: Ray failed; the chunks that are done stay.
        CatalogError: what reading a chunk raised.
    """
    if len(chunks) <= _FEW:
        yield from scan_here(chunks, perceptual)
        return
    try:
        with connected():
            yield from _scan(chunks, perceptual)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise BuildError(f"Ray stopped in the scan: {error}. The same command resumes.") from error


def _scan(chunks: Sequence[Chunk], perceptual: bool) -> Iterator[int]:
    task = ray.remote(num_cpus=1, max_retries=3)(scan_chunk)
    left = iter(chunks)
    most = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
    running = [task.remote(chunk, perceptual) for chunk in islice(left, most)]
    while running:
        done, running = ray.wait(running, num_returns=1)
        running += [task.remote(chunk, perceptual) for chunk in islice(left, len(done))]
        yield from ray.get(done)
