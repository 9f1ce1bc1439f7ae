"""What can go wrong in the pipeline, and the exit codes.

UsageError (ValueError)          exit 2: a wrong flag, recipe or combination
└── RecipeError                  a recipe that does not validate; names file, key path and line
BuildError (RuntimeError)        exit 1: the build could not go on
RetrainError (RuntimeError)      exit 1: a night of rebuilding and training could not go on
├── BusyError                    somebody else is at work in the folder, or lately was
├── LeaseLost                    somebody else has taken the folder over
└── PromotionError               something else was promoted meanwhile, or a record is not ours
Interrupted (BaseException)      exit 128 + the signal's number: somebody stopped the command
"""

import signal
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class Exit(IntEnum):
    """Exit codes of every command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    FAILURES = 3  # finished, with more failed images than allowed


class UsageError(ValueError):
    """The command was asked for something that it cannot mean."""


class RecipeError(UsageError):
    """A recipe does not validate."""


class BuildError(RuntimeError):
    """A build stopped before its units were done; the same command resumes it."""


class RetrainError(RuntimeError):
    """A night stopped before its end; the same command goes on with it."""


class BusyError(RetrainError):
    """Somebody else is at work in the folder, or was until a moment ago."""


class LeaseLost(RetrainError):
    """Somebody else has taken the folder over; nothing more may be promoted here."""


class PromotionError(RetrainError):
    """The log of promotions is not what was expected: something else came meanwhile."""


class Interrupted(BaseException):
    """A signal asked the command to end; no `except Exception` may hold it up."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def in_flags(error: "ValidationError") -> str:
    """Put a validation error in terms of the flags that were given."""
    issues = (
        ("-".join(one for one in issue["loc"] if isinstance(one, str)), issue)  # no place in a list
        for issue in error.errors()
    )
    return "; ".join(
        f"--{name.replace('_', '-')} {issue['input']!r}: {issue['msg']}"
        if name  # else the flags do not go together, and the message says which
        else str(issue["msg"])
        for name, issue in issues
    )
