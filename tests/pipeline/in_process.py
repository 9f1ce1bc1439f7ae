"""A command in the process of the tests, which has imported what it needs already."""

from typer.testing import CliRunner

from pipeline.commands.cli import app
from tests.training.stepping import forget_accelerate


def here(*arguments: str) -> str:
    """Run a command that must end well; return what it printed."""
    forget_accelerate()
    done = CliRunner().invoke(app, list(arguments))
    forget_accelerate()
    assert done.exit_code == 0, done.output
    return done.output
