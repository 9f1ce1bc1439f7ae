"""Whether what lies on this machine's disks is seen by the others that are to work on it."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from catalog import storage
from pipeline.errors import UsageError

_PATIENCE = 120.0  # seconds until a node's answer is given up
_OF_A_FOLDER = 3  # entries by which a folder is told from another one of its name


def require_shared(uris: Iterable[str]) -> None:
    """Refuse what lies on a disk of this machine where another node does not see the same there.

    Only nodes that are up and take work are asked; what cannot be seen here is passed over.

    Args:
        uris: of files and folders that work on the connected cluster reads and writes.

    Raises:
        UsageError: a node lacks one, or has another file of that name.
    """
    paths = [path for uri in uris if (path := storage.local_path(uri)) is not None]
    known = {one: size for path in paths for one, size in _evidence(path.absolute())}
    lacking = {node: absent for node, absent in _ask_others(known).items() if absent}
    if lacking:
        node, absent = next(iter(lacking.items()))
        more = f" and {len(lacking) - 1} other nodes" if len(lacking) > 1 else ""
        raise UsageError(
            f"{absent[0]} is on the disk of {platform.node()}, where {node}{more} cannot see it: "
            "put images and dataset on storage that all nodes share (s3://, or a mount at the same "
            "path), or work on this machine alone: --local, or no RAY_ADDRESS"
        )


def _evidence(path: Path) -> list[tuple[str, int | None]]:
    """Return paths that stand here, by which another machine knows this one; sizes of files."""
    if path.is_file():
        return [(os.fspath(path), path.stat().st_size)]
    if not path.is_dir():
        return []
    with os.scandir(path) as entries:
        named = (entry for entry in entries if not entry.name.startswith("."))  # those may vanish
        found = [
            (entry.path, entry.stat().st_size if entry.is_file() else None)
            for entry in islice(named, _OF_A_FOLDER)
        ]
    return [(os.fspath(path), None), *found]


def _ask_others(known: Mapping[str, int | None]) -> dict[str, Sequence[str]]:
    """Return what each other node lacks, by its address; one that does not answer lacks nothing."""
    if not known:
        return {}
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    here = ray.get_runtime_context().get_node_id()
    asked = {
        _ask(node["NodeID"], known): node["NodeManagerAddress"]
        for node in nodes
        if node["Alive"] and node["NodeID"] != here and _takes_work(node["Resources"])
    }
    if not asked:
        return {}
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_PATIENCE)
    return {asked[answer]: _got(answer) for answer in answered}


def _takes_work(resources: Mapping[str, float]) -> bool:
    return resources.get("CPU", 0) > 0 or resources.get("GPU", 0) > 0


def _ask(node_id: str, known: Mapping[str, int | None]) -> Any:
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task = ray.remote(missing).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
    return task.remote(dict(known))


def _got(answer: Any) -> Sequence[str]:
    try:
        found: Sequence[str] = ray.get(answer)
    except RayError:  # it has gone; whoever comes in its place is met at work
        return []
    return found


def missing(known: Mapping[str, int | None]) -> list[str]:
    """Return those of the paths that are not here, or are files of another size (bytes)."""
    return [
        path
        for path, size in known.items()
        if not os.path.exists(path) or (size is not None and os.path.getsize(path) != size)
    ]
