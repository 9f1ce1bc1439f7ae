"""Commands in a row, each done once: what a call has finished, the next one does not do again."""

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from catalog.storage import write_atomic

Program = Callable[[Sequence[str]], None]
"""Runs with arguments; raises where it fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command.

    Attributes:
        title: what it does, in words.
        command: its words, the program first.
        makes: what is there once it is done.
    """

    title: str
    command: tuple[str, ...]
    makes: Path

    def __str__(self) -> str:
        """As one types it."""
        return shlex.join(self.command)


class Walk:
    """Takes steps, and keeps a journal of what it took and how long that was."""

    def __init__(
        self, journal: Path, programs: Mapping[str, Program], say: Callable[[str], None]
    ) -> None:
        """Read the journal.

        Args:
            journal: JSON file, seconds by command; it may not be there yet.
            programs: by the first word of a command.
            say: tells people.
        """
        self.seconds: dict[str, float] = {}
        self.went_on = False
        self._journal, self._programs, self._say = journal, programs, say
        if journal.is_file():
            self.seconds = json.loads(journal.read_text())

    def take(self, step: Step) -> None:
        """Run a command, unless it was run, what it makes is there, and nothing before it ran."""
        self._say(f"{step.title}\n  {step}")
        if not self.went_on and str(step) in self.seconds and step.makes.exists():
            self._say("  nothing to do")
            return
        self.went_on = True
        begun = time.monotonic()
        program, *arguments = step.command
        self._programs[program](arguments)
        self.seconds[str(step)] = time.monotonic() - begun
        self._say(f"  {self.seconds[str(step)]:.0f} s")
        write_atomic(str(self._journal), json.dumps(self.seconds, indent=2).encode() + b"\n")
