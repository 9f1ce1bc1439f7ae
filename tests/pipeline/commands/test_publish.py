"""report, remove and compact from the shell, and a takedown as a training run sees it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.dataset.dataset import Dataset
from pipeline.build.build import BuildResult
from pipeline.commands import cli
from pipeline.errors import Exit
from pipeline.ledger.remake import rebuild_sampled
from pipeline.recipe.execution import Execution
from training.data.examples import Examples


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Call the command line as the shell does; return exit code and all that it said."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["controlnet-factory", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        assert "Traceback" not in shown.out + shown.err
        return int(ended.value.code or 0), shown.out + shown.err

    return call


@pytest.fixture
def dataset(pictures: Path, make: Callable[..., BuildResult], tmp_path: Path) -> Dataset:
    make(pictures, tmp_path / "d")
    return Dataset.open(str(tmp_path / "d"))


def test_report_writes_one_file_and_says_its_size(run, dataset: Dataset, tmp_path: Path) -> None:
    code, said = run("report", dataset.uri, "--out", tmp_path / "r.html", "--samples", 2)
    assert code == Exit.DONE
    assert "KiB, in " in said
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_remove_then_compact(run, dataset: Dataset, tmp_path: Path) -> None:
    keys = dataset.view().table["key"].to_pylist()
    (tmp_path / "keys.txt").write_text(f"{keys[0]}\n{dataset.view().table['sha256'][4]}\n")
    code, said = run("remove", dataset.uri, "--keys", tmp_path / "keys.txt")
    assert (code, "removed: 2 samples of 2 keys named, 8 left" in said) == (Exit.DONE, True)
    examples = Examples(
        dataset.view(), "canny", seed=0, prompt_dropout=0, multiple=8
    )  # what `train` reads through
    assert {examples[at].key for at in range(8)} == {*keys[1:4], *keys[5:]}
    assert "removed before" in run("remove", dataset.uri, "--keys", tmp_path / "keys.txt")[1]
    assert "2 units; 4 old files deleted" in run("compact", dataset.uri)[1]
    assert "nothing to do" in run("compact", dataset.uri)[1]
    code, said = run("verify", dataset.uri)
    assert (code, "good: 8 samples" in said) == (Exit.DONE, True)
    assert rebuild_sampled(dataset, 4, Execution(threads=1)) == []


@pytest.mark.parametrize(
    ("text", "said"), [(None, "does not exist"), ("", "names nothing"), ("\nword\n", "line 2")]
)
def test_a_wrong_list_of_keys_is_a_wrong_call(
    run, dataset: Dataset, tmp_path: Path, text: str | None, said: str
) -> None:
    path = tmp_path / "keys.txt"
    if text is not None:
        path.write_text(text)
    code, shown = run("remove", dataset.uri, "--keys", path)
    assert (code, said in shown) == (Exit.USAGE, True)
    assert len(dataset.view()) == 10
