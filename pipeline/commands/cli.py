"""The command line: ``controlnet-factory``, the same as ``python -m pipeline``."""

import signal
import sys
import warnings
from types import FrameType

import typer
from rich.markup import escape

from captioning.errors import CaptionError
from catalog.errors import CatalogError
from detectors.errors import DetectorError
from pipeline.commands.lazy import group_of
from pipeline.errors import BuildError, Exit, Interrupted, RetrainError, UsageError
from pipeline.terminal.console import err
from training.errors import TrainingError

MODULES = (
    *("build", "dataset", "ledger", "snapshots", "lineage", "publish", "annotate", "precompute"),
    *("train", "evaluate", "compare", "ablate", "generate", "export", "rebuild", "operate"),
    *("weights", "demo"),
)
"""Modules of this package that have commands, in the order of ``--help``."""

app = typer.Typer(
    cls=group_of(MODULES),
    name="controlnet-factory",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    help="Make ControlNet training sets from raw images, and train ControlNets on them.\n\n"
    "The main path: **build** a dataset, cut a **subset**, **train**, **evaluate**, **generate**. "
    "Every command can be run again: what is done is not done twice.\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage or recipe, 3 done with too many failed images, "
    "129, 130 and 143 stopped by SIGHUP, SIGINT and SIGTERM.",
)


@app.callback()
def _every_command() -> None:
    """Have no options: the commands have them."""


def main() -> None:
    """Run the command line; a user's mistake ends in one message, never in a traceback."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # Pillow's remarks on broken EXIF
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _interrupt)
    try:
        app()
    except Interrupted as interrupted:
        err.print(f"{interrupted}; what is committed stays, the same command goes on from there")
        sys.exit(interrupted.exit_code)
    except UsageError as error:
        _fail(error, Exit.USAGE)
    except (CatalogError, DetectorError, CaptionError, TrainingError) as error:
        _fail(error, Exit.FAILED)
    except (BuildError, RetrainError, OSError) as error:
        _fail(error, Exit.FAILED)


def _interrupt(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: the ending must not be cut short
    raise Interrupted(number)


def _fail(error: Exception, code: Exit) -> None:
    text = str(error) or type(error).__name__
    err.print(f"[bold red]error:[/] {escape(text)}")
    sys.exit(code)
