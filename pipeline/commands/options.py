"""Options that several commands share, and their validation."""

from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from pipeline.errors import UsageError, in_flags
from pipeline.recipe.execution import Execution

T = TypeVar("T")

Device = Annotated[str, typer.Option(help="Where networks run: cpu or cuda.")]
NetworkThreads = Annotated[int, typer.Option(help="Threads inside a network on the CPU.")]
DatasetUri = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's folder or URI.")]
SubsetName = Annotated[str | None, typer.Option(help="A subset, for example 1k; default all.")]

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override a field: detectors.0.low=80."),
]


def execution_of(fields: dict[str, Any]) -> Execution:
    """Return an Execution; raises UsageError in terms of the flags."""
    try:
        return Execution.model_validate(fields)
    except ValidationError as error:
        raise UsageError(in_flags(error)) from error


def one_of(flag: str, name: str, known: tuple[T, ...]) -> T:
    """Return the value that a flag names; raises UsageError where it is none of `known`."""
    for value in known:
        if value == name:
            return value
    raise UsageError(f"{flag} {name!r} is unknown; expected one of {', '.join(map(str, known))}")
