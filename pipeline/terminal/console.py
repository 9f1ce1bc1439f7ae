"""Where the commands write, and results as tables."""

import json
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.figures import counted, human_bytes

if TYPE_CHECKING:
    from catalog.dataset.dataset import Status
    from pipeline.plan.judge import PlanSummary


class SafeConsole(Console):
    """A console on which a file's name or a caption is only read.

    Control characters, which could drive the terminal, and those that turn the direction of
    writing are shown as their code; ``:cat:`` stays what it is.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as rich would print it, without what is no text."""
        return super().render_str(visible(text), **options)


def visible(text: str) -> str:
    r"""Return `text` with ``\x1b`` in the place of an escape, and so on; lines and tabs stay."""
    return "".join(one if one in "\n\t" or _is_text(one) else _code(one) for one in text)


def _is_text(one: str) -> bool:
    category = unicodedata.category(one)
    return category not in ("Cc", "Cs") and unicodedata.bidirectional(one) not in _TURNS


def _code(one: str) -> str:
    return one.encode("unicode_escape", "surrogatepass").decode()


_TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")

out = SafeConsole()
err = SafeConsole(stderr=True)


def show_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object, in ASCII: for programs, and harmless on a terminal."""
    print(json.dumps(value, allow_nan=False))


def show_status(uri: str, status: "Status") -> None:
    """Print a dataset's counts."""
    table = _table(uri)
    table.add_row("units", f"{status.units_done:,} of {status.units:,} committed")
    table.add_row("images", f"{status.images:,} found")
    table.add_row("samples", f"{status.samples:,}")
    for kind, count in status.rejects.items():
        table.add_row(f"  {escape(kind)}", f"{count:,}")
    table.add_row("shards", human_bytes(status.shard_bytes))
    if status.mismatches:
        table.add_row("mismatches", f"{status.mismatches:,} from other environments")
    out.print(table)


def show_plan(summary: "PlanSummary") -> None:
    """Print what a build would do."""
    table = _table("plan")
    table.add_row("fingerprint", summary.fingerprint)
    table.add_row("units", f"{summary.units:,}")
    table.add_row("images", f"{summary.images:,}")
    for kind, count in summary.rejects.items():
        table.add_row(f"  {escape(kind)}", f"{count:,}")
    table.add_row("to read", human_bytes(summary.bytes_to_read))
    table.add_row("to write", f"about {human_bytes(summary.bytes_to_write)}")
    out.print(table)


def show_source(metadata: Mapping[str, Any]) -> None:
    """Print what a scan found beside the images, and what it passed over.

    Args:
        metadata: kept with a source table; one of older code says less.
    """
    if captions := metadata.get("captions"):
        out.print(f"captions: {captions[0]:,} of {captions[1]:,} images")
    if ignored := metadata.get("ignored"):
        out.print(f"passed over: {escape(counted(ignored))}")


def _table(title: str) -> Table:
    return Table("", "", title=escape(title), show_header=False, title_justify="left")
