"""What a stranger wrote is only read: it cannot drive a terminal."""

import io

import pytest
from rich.markup import escape
from rich.table import Table

from pipeline.terminal.console import SafeConsole, visible


@pytest.fixture
def printed():
    def run(*objects: object) -> str:
        console = SafeConsole()
        console.file = io.StringIO()
        for one in objects:
            console.print(one)
        return console.file.getvalue()

    return run


HOSTILE = {
    "\x1b]0;owned\x07": r"\x1b]0;owned\x07",
    "a\x1b[2Jb": r"a\x1b[2Jb",
    "line\rover": r"line\rover",
    "\u202eexe.jpg": r"\u202eexe.jpg",
    "\u2066x\u2069": r"\u2066x\u2069",
    "\x9b31m": r"\x9b31m",
    "half \ud800": r"half \ud800",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_what_drives_a_terminal_is_shown_as_its_code(printed, text: str) -> None:
    assert HOSTILE[text] in printed(escape(text))
    table = Table("name")
    table.add_row(escape(text))
    assert HOSTILE[text] in printed(table)


def test_words_of_all_writings_stay(printed) -> None:
    text = "caf\u00e9 \u0645\u0631\u062d\u0628\u0627 \u5b66\u6821 \U0001f408\n\tindented :cat: [x]"
    assert visible(text) == text
    assert printed(escape(text)) == text.expandtabs() + "\n" or text in printed(escape(text))


def test_markup_of_ours_is_still_markup(printed) -> None:
    assert printed("[bold red]error:[/] no") == "error: no\n"
