"""Units in this process, without Ray: the same worker, the same bytes."""

from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from pipeline.attempts.health import Health
from pipeline.attempts.outcome import UnitFailure, UnitReport
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe
from pipeline.unit.worker import UnitWorker


def run_local(
    dataset: str, recipe: Recipe, execution: Execution, pending: Sequence[int], run: str
) -> Generator[UnitReport | UnitFailure]:
    """Run units here, a few in hand at once; yields them as they end.

    Where several fail in a row for reasons of the place, the others are left for a later round.
    """
    worker = UnitWorker(dataset, recipe, execution, run)
    health = Health(execution.failures_before_leaving)
    left = iter(pending)
    running: set[Future[UnitReport | UnitFailure]] = set()
    with ThreadPoolExecutor(execution.units_in_hand) as pool:
        try:
            while True:
                room = 0 if health.sick else execution.units_in_hand - len(running)
                running |= {pool.submit(worker.run, index) for index in islice(left, room)}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    health.tell(future.result())
                    yield future.result()
        finally:
            worker.stop()  # what is in hand ends at its next image
