"""Does the code still make the bytes that were committed? Rebuild some units and compare."""

import tempfile
from pathlib import Path

import numpy as np

from catalog import storage
from catalog.dataset import commits
from catalog.dataset.dataset import Dataset
from catalog.sample import DROPPED, REMOVED
from pipeline.errors import UsageError
from pipeline.recipe.execution import Execution
from pipeline.recipe.made_by import recipe_of
from pipeline.unit.worker import UnitWorker


def rebuild_sampled(
    dataset: Dataset, count: int, execution: Execution, *, seed: int = 0
) -> list[str]:
    """Annotate `count` units again, drawn by `seed`, beside the dataset; return what differs.

    Units from which samples were taken out are passed over: they are not what was built. So are
    those of which failed images were tried again since: what failed them may be gone.

    Raises:
        UsageError: a detector's code has come to make other maps since.
    """
    recipe = recipe_of(dataset)
    if dataset.versions != recipe.versions:
        changed = {*dataset.versions.items()} ^ {*recipe.versions.items()}
        names = ", ".join(sorted({name for name, _ in changed}))
        raise UsageError(
            f"{dataset.uri} cannot be rebuilt by this version, which draws {names} in another way; "
            "verify without --rebuild checks its bytes"
        )
    worker = UnitWorker(dataset.uri, recipe, execution)
    done = [one for one in commits.read_commits(dataset.uri) if not _is_past(dataset, one)]
    draw = np.random.Generator(np.random.Philox(seed)).permutation(len(done))
    return [line for at in sorted(draw[:count]) for line in _rebuild(worker, done[at])]


def _is_past(dataset: Dataset, commit: commits.Commit) -> bool:
    failed = any(status.startswith("failed:") for status in commit.counts)
    return bool({REMOVED, DROPPED} & {*commit.counts}) or (
        failed and commit.index < dataset.plans.firsts[-1]
    )


def _rebuild(worker: UnitWorker, commit: commits.Commit) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        attempt = worker.attempt(commit.index, Path(folder))
        paths = (attempt.tar, attempt.rows, *((attempt.held,) if attempt.held else ()))
        changed = [
            stored.name  # a file too many or too few shows in the rows, which name its blocks
            for path, stored in zip(paths, commit.files, strict=False)
            if storage.sha256_file(str(path)) != stored.sha256
        ]
    if not changed:
        return []
    why = "in the same environment: the code or a library is not deterministic"
    if not commits.is_same_environment(attempt.environment, commit.environment):
        why = f"made with {commit.environment}, rebuilt with {attempt.environment}"
    return [f"unit {commit.index} rebuilds to other bytes: {', '.join(changed)} ({why})"]
