"""The demonstration, short: all of its commands, its page, and a second call."""

import json
from pathlib import Path

import pytest

from pipeline.commands import cli
from pipeline.demo import photographs

SHORT = ("--pictures", "40", "--steps", "2", "--local")


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    few = dict(list(photographs._PHOTOGRAPHS.items())[:3])
    monkeypatch.setattr(photographs, "_PHOTOGRAPHS", few)  # the portrait comes beside them
    monkeypatch.setattr(photographs, "_CONDITIONS", ("canny", "lsd"))

    def run(*arguments: str) -> str:
        folder = tmp_path / "demo"
        monkeypatch.setattr("sys.argv", ["factory", "demo", "--out", str(folder), *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capfd.readouterr()
        assert ended.value.code == 0, shown.err
        return shown.out

    return run


def test_the_whole_path_and_nothing_twice(demo, tmp_path: Path) -> None:
    shown = demo(*SHORT)
    folder = tmp_path / "demo"
    assert "nothing to do" not in shown
    page = (folder / "index.html").read_text()
    steps = json.loads((folder / "steps.json").read_text())
    assert len(steps) == 9
    for command in steps:
        assert command in page  # each shows beside what it made
    evaluation = json.loads((folder / "shapes/run/evaluation/evaluation.json").read_text())
    for row in evaluation["rows"]:
        assert f"{row['mean']:.3f}" in page
    assert page.count("data:image/png") == 3
    assert "<script" not in page
    assert (folder / "shapes/run/config.json").is_file()

    again = demo(*SHORT)
    assert again.count("nothing to do") == 9
    assert "index.html" in again
    assert (folder / "index.html").read_text() == page
