"""A scan on Ray: a chunk is a task; rows go to the storage, only counts come back."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import ray
from ray.exceptions import RayError, RayTaskError

from catalog.errors import StorageUnavailable
from pipeline.cluster.connect import connected, from_anywhere
from pipeline.cluster.sharing import require_shared
from pipeline.errors import BuildError
from pipeline.scan.chunks import Chunk, scan_chunk, scan_here

_FEW = 4  # chunks that one process reads sooner than Ray starts
_AHEAD = 2  # tasks for each CPU: one runs, one waits
_SUBMITTED = 400  # tasks at least: a cluster that grows does so for what waits
_LOOKED_AT = 3  # files by which a node shows that it sees the images


def scan_on_ray(chunks: Sequence[Chunk], perceptual: bool) -> Iterator[int]:
    """Scan chunks on the cluster that a build would use, or here where they are few.

    Raises:
        UsageError: images, or the folder of the chunks, lie where another node cannot see them.
        BuildError: Ray failed; the chunks that are done stay.
        CatalogError: what reading a chunk raised.
    """
    chunks = [replace(chunk, uri=from_anywhere(chunk.uri)) for chunk in chunks]
    if len(chunks) <= _FEW:
        yield from scan_here(chunks, perceptual)
        return
    try:
        with connected():
            first = [uri for chunk in chunks[:_LOOKED_AT] for uri in chunk.listed["uri"][:1]]
            folder = chunks[0].uri.rpartition("/")[0]
            require_shared([folder, *(uri.as_py() for uri in first)])
            yield from _scan(chunks, perceptual)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise BuildError(f"Ray stopped in the scan: {error}. The same command resumes.") from error


def _scan(chunks: Sequence[Chunk], perceptual: bool) -> Iterator[int]:
    task = ray.remote(  # type: ignore[call-overload]  # its stubs know no list
        num_cpus=1, max_retries=3, retry_exceptions=[StorageUnavailable]
    )(scan_chunk)
    left = iter(chunks)
    running = [task.remote(chunk, perceptual) for chunk in islice(left, _most())]
    while running:
        done, running = ray.wait(running, num_returns=1)
        room = max(0, _most() - len(running))
        running += [task.remote(chunk, perceptual) for chunk in islice(left, room)]
        yield from ray.get(done)


def _most() -> int:
    """Return how many tasks may be submitted: enough for the nodes that are up now."""
    cpus = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    return max(_SUBMITTED, _AHEAD * cpus)
