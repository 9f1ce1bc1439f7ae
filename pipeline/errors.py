"""What can go wrong in the pipeline, and the exit codes.

UsageError (ValueError)          exit 2: a wrong flag, recipe or combination
└── RecipeError                  a recipe that does not validate; names file, key path and line
BuildError (RuntimeError)        exit 1: the build could not go on
"""

from enum import IntEnum

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


def in_flags(error: ValidationError) -> str:
    """Put a validation error in terms of the flags that were given."""
    issues = (("-".join(map(str, issue["loc"])), issue) for issue in error.errors())
    return "; ".join(
        f"--{name.replace('_', '-')} {issue['input']!r}: {issue['msg']}" for name, issue in issues
    )
