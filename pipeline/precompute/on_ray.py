"""Latents on Ray: units through actors that hold the locked networks."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

from catalog.dataset.latents import UnitLatents
from pipeline.cluster.connect import connected, from_anywhere
from pipeline.cluster.units import ray_told, room_for_actors, sized, through_actors, unit_rows
from pipeline.errors import BuildError
from pipeline.precompute.encoder import Encoder, Precompute
from pipeline.recipe.execution import Execution


class EncodeActor:
    """An encoder inside Ray; ids go in and commits come out, no array leaves the actor."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._encoder: Encoder | None = None
        try:
            self._encoder = Encoder(Precompute.model_validate(request))
        except Exception as error:  # told by the first unit: Ray would wrap it and lose its name
            self._error = f"{type(error).__name__}: {error}"

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Encode the units whose ids the batch holds; return commits, or what went wrong."""
        return {"result": [self._run(str(unit)) for unit in batch["unit"]]}

    def _run(self, unit: str) -> str:
        if self._encoder is None:
            return json.dumps({"error": self._error})
        try:
            return self._encoder.run(unit).to_json().decode()
        except Exception as error:
            return json.dumps({"error": f"unit {unit}: {type(error).__name__}: {error}"})


def run_on_ray(
    request: Precompute, pending: Sequence[str], execution: Execution
) -> Iterator[UnitLatents]:
    """Encode units on a Ray cluster (RAY_ADDRESS), or on a local one that stops by itself.

    Raises:
        BuildError: Ray itself failed, or a unit did, when all others are done.
    """
    execution = execution.model_copy(update={"units_in_hand": 1})  # one has the device
    request = request.model_copy(
        update={
            "dataset": from_anywhere(request.dataset),
            "base": from_anywhere(request.base) if os.path.isdir(request.base) else request.base,
        }
    )
    failed: list[str] = []
    patience = execution.patience(images=0)
    with ray_told(patience), connected():
        execution = sized(execution)
        most = min(room_for_actors(execution), len(pending))
        rows = through_actors(
            unit_rows(pending, patience),
            EncodeActor,
            {"request": request.model_dump()},
            execution,
            most=most,
        )
        for row in rows.iter_rows():
            if "error" in json.loads(row["result"]):
                failed.append(json.loads(row["result"])["error"])
            else:
                yield UnitLatents.from_json(row["result"].encode())
    if failed:
        more = f" ({len(failed)} units failed)" if len(failed) > 1 else ""
        raise BuildError(f"{failed[0]}{more}. What is committed stays; the same command resumes.")
