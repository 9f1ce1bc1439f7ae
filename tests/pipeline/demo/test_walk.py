"""Steps are done once; what follows a step that ran is done again."""

from pathlib import Path

import pytest

from pipeline.demo.walk import Step, Walk


class Kitchen:
    """Programs that write the file they are told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ran: list[str] = []
        self.said: list[str] = []
        self.broken = ""

    def write(self, arguments) -> None:
        (name, *_) = arguments
        if name == self.broken:
            raise RuntimeError(name)
        self.ran.append(name)
        (self.folder / name).write_text(name)

    def step(self, name: str, *flags: str) -> Step:
        return Step(title=name, command=("write", name, *flags), makes=self.folder / name)

    def walk(self, *steps: Step) -> Walk:
        self.ran, self.said = [], []
        walk = Walk(self.folder / "steps.json", {"write": self.write}, self.said.append)
        for step in steps:
            walk.take(step)
        return walk


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path)


def test_what_was_done_is_not_done_again(kitchen: Kitchen) -> None:
    first, second = kitchen.step("a"), kitchen.step("b")
    assert kitchen.walk(first, second).went_on
    assert kitchen.ran == ["a", "b"]
    again = kitchen.walk(first, second)
    assert (kitchen.ran, again.went_on) == ([], False)
    assert sum("nothing to do" in text for text in kitchen.said) == 2
    assert set(again.seconds) == {"write a", "write b"}


def test_what_follows_a_step_that_ran_is_done_again(kitchen: Kitchen) -> None:
    kitchen.walk(*(kitchen.step(name) for name in "abc"))
    (kitchen.folder / "b").unlink()
    kitchen.walk(*(kitchen.step(name) for name in "abc"))
    assert kitchen.ran == ["b", "c"]


def test_another_command_is_not_the_one_that_was_run(kitchen: Kitchen) -> None:
    kitchen.walk(kitchen.step("a"))
    kitchen.walk(kitchen.step("a", "--steps", "5"))
    assert kitchen.ran == ["a"]


def test_a_step_that_failed_is_tried_again(kitchen: Kitchen) -> None:
    kitchen.broken = "b"
    with pytest.raises(RuntimeError):
        kitchen.walk(kitchen.step("a"), kitchen.step("b"))
    kitchen.broken = ""
    kitchen.walk(kitchen.step("a"), kitchen.step("b"))
    assert kitchen.ran == ["b"]


def test_a_command_is_shown_as_one_types_it(tmp_path: Path) -> None:
    step = Step(title="t", command=("write", "two words", "--a=b"), makes=tmp_path)
    assert str(step) == "write 'two words' --a=b"
