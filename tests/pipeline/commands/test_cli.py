"""The command line: exit codes, and messages that say what to do."""

import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.commands import cli
from pipeline.errors import BusyError, Exit
from tests.corpus import noise

_SMALL = [
    "--set",
    "captions.captioner=sidecar",
    "--set",
    "image.resolution=64",
    "--set",
    "samples_per_unit=4",
]


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Call the command line as the shell does; return exit code, stdout and stderr."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr("sys.argv", ["controlnet-factory", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        assert "Traceback" not in shown.out + shown.err
        return Result(int(ended.value.code or 0), shown.out, shown.err)

    return call


@pytest.fixture(scope="module")
def dataset(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "d"
    arguments = ["build", "canny", "--local", "--images", str(pictures), "--out", str(out), *_SMALL]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, done.output
    return out


def test_help_names_every_command(run) -> None:
    shown = run("--help")
    assert shown.code == Exit.DONE
    for command in ("scan", "plan", "build", "subset", "materialize", "status", "verify", "ls"):
        assert re.search(rf"\b{command}\b", shown.out)
    for command in ("train", "generate", "demo", "rejects", "requery"):
        assert re.search(rf"\b{command}\b", shown.out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["build", "canni", "--images", ".", "--out", "d"], "shipped one: canny"),
        (["build", "canny", "--out", "d"], "--images URI"),
        (
            ["build", "canny", "--images", ".", "--out", "d", "--set", "sead=1"],
            "did you mean 'seed'",
        ),
        (["build", "canny", "--images", ".", "--out", "d", "--actors", "0"], "--actors"),
        (["build", "canny", "--images", ".", "--out", "d", "--no-such-flag"], "No such option"),
        (["scan"], "--images URI"),
        (["scan", "--images", "empty"], "no image files"),
        (["plan", "canny", "--images", "."], "--dry-run"),
        (["generate", "--controlnet", "x", "--base", "y", "--image", "no.png"], "no.png does not"),
    ],
)
def test_a_wrong_call_exits_2_or_says_what_is_missing(
    run, arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    shown = run(*arguments)
    assert shown.code in (Exit.USAGE, Exit.FAILED)
    assert said in shown.err


def test_a_missing_source_exits_1(run, tmp_path: Path) -> None:
    shown = run("scan", "--images", tmp_path / "nowhere", "--out", tmp_path / "s.parquet")
    assert shown.code == Exit.FAILED
    assert "does not exist" in shown.err


def test_a_folder_that_another_works_in_is_one_message(run, monkeypatch) -> None:
    def refuse() -> None:
        raise BusyError("nights: another holds it")

    monkeypatch.setattr(cli, "app", refuse)
    shown = run("demo")
    assert shown.code == Exit.FAILED
    assert "error: nights: another holds it" in shown.err


@pytest.mark.parametrize("command", ["status", "verify", "ls"])
def test_no_dataset_is_one_message(run, command: str, tmp_path: Path) -> None:
    shown = run(command, tmp_path)
    assert shown.code == Exit.FAILED
    assert "no dataset at" in shown.err


def test_scan_takes_several_uris_and_plan_reads_its_table(
    run, pictures: Path, tmp_path: Path
) -> None:
    table = tmp_path / "source.parquet"
    shown = run("scan", "--images", pictures / "odd", pictures / "even", "--out", table)
    assert shown.code == Exit.DONE
    assert "10  ok" in shown.out
    assert "captions: 7 of 10 images" in shown.out
    planned = run("plan", "canny", "--source", table, "--dry-run", *_SMALL)
    assert planned.code == Exit.DONE
    assert "fingerprint" in planned.out
    assert "│ units       │ 3" in planned.out


def test_what_is_passed_over_is_told_by_every_command(run, tmp_path: Path) -> None:
    for name, data in (("a.png", noise(1)), ("IMG.HEIC", b"heic"), ("a.txt", b"\xff")):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    given = ["--images", tmp_path / "in", *_SMALL]
    out = tmp_path / "d"
    for arguments in (
        ["plan", "canny", "--dry-run", *given],
        ["plan", "canny", "--out", out, *given],
        ["build", "canny", "--local", "--out", out, *given],
        ["status", out],
    ):
        shown = run(*arguments)
        assert shown.code == Exit.DONE, shown.err
        assert "captions: 0 of 1 images" in shown.out
        assert "passed over: 1 .heic, 1 caption files that are no UTF-8" in shown.out


def test_status_ls_subset_and_materialize(run, dataset: Path, tmp_path: Path) -> None:
    assert "3 of 3 committed" in run("status", dataset).out
    listed = run("ls", dataset, "--limit", 3)
    assert len(re.findall(r"\b[0-9a-f]{32}\b", listed.out)) == 3
    made = run("subset", dataset, "--sizes", "2,6,1k")
    assert made.code == Exit.DONE
    assert "6: 6 samples" in made.out
    assert "1k: not written, the dataset has 10 samples" in made.err
    assert run("subset", dataset, "--sizes", "50k").code == Exit.FAILED
    assert run("subset", dataset, "--sizes", "2", "--policy", "best").code == Exit.USAGE
    copied = run("materialize", dataset, "--subset", "6", "--out", tmp_path / "t")
    assert copied.code == Exit.DONE
    with tarfile.open(tmp_path / "t" / "000000.tar") as tar:
        assert len(tar.getnames()) == 6 * 4
    assert "not empty" in run("materialize", dataset, "--out", tmp_path / "t").err


def test_verify_exits_1_on_a_flipped_bit(run, dataset: Path) -> None:
    assert run("verify", dataset, "--rebuild", "1").code == Exit.DONE
    shard = min((dataset / "shards").glob("*.tar"))
    good = shard.read_bytes()
    shard.write_bytes(good[:-600] + bytes([good[-600] ^ 1]) + good[-599:])
    try:
        shown = run("verify", dataset)
    finally:
        shard.write_bytes(good)
    assert shown.code == Exit.FAILED
    assert shard.name in shown.err


def test_too_many_failed_images_exit_3(
    run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("every decode fails")

    monkeypatch.setattr("pipeline.unit.load.decode", broken)
    arguments = ["--local", "--images", pictures, "--out", tmp_path / "d", *_SMALL]
    shown = run("build", "canny", *arguments)
    assert shown.code == Exit.FAILURES
    assert "failed:ZeroDivisionError" in shown.out
    allowed = run("build", "canny", *arguments, "--max-failed-share", "1")
    assert allowed.code == Exit.DONE


def test_train_and_generate(run, dataset: Path, tmp_path: Path) -> None:
    from diffusers import ControlNetModel

    from catalog.dataset.dataset import Dataset
    from tests.random_base import write_random_base

    base, out = tmp_path / "random-base", tmp_path / "run"
    write_random_base(str(base))
    arguments = ["--dataset", dataset, "--base", base, "--out", out, "--steps", 2]
    arguments += ["--probe-every", 0]
    trained = run("train", *arguments, "--batch-size", 2)
    assert trained.code == Exit.DONE, trained.err
    assert "2 steps" in trained.out
    assert "nothing to do" in run("train", *arguments, "--batch-size", 2).out
    assert ControlNetModel.from_pretrained(str(out)).config.cross_attention_dim > 0
    assert json.loads((out / "train.json").read_text())

    hint = tmp_path / "hint.png"
    hint.write_bytes(Dataset.open(str(dataset)).view().read(0).conditions["canny"])
    made = run(
        "generate", "--controlnet", out, "--base", base, "--image", hint, "--out", tmp_path / "g",
        "--steps", 2, "--seed", 3, "--seed", 4,
    )  # fmt: skip
    assert made.code == Exit.DONE, made.err
    names = {path.name for path in (tmp_path / "g").iterdir()}
    assert names == {"hint-seed3.png", "hint-seed4.png", "grid.png", "generated.json"}


def test_train_says_which_flag_is_wrong(run, dataset: Path, tmp_path: Path) -> None:
    common = ["train", "--dataset", dataset, "--base", tmp_path / "none", "--out", tmp_path / "r"]
    shown = run(*common, "--steps", "0")
    assert shown.code == Exit.USAGE
    assert "--steps" in shown.err
    missing = run(*common, "--steps", "1")
    assert missing.code == Exit.FAILED
    assert "none" in missing.err
    unknown = run(*common, "--subset", "7k")
    assert unknown.code == Exit.FAILED
    assert "no subset '7k'" in unknown.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["annotate", "x.jpg", "--conditions", "canny", "--out", "o", "--device", "gpu"], "'gpu'"),
        (["evaluate", "--run", "r", "--dataset", "d", "--device", "gpu"], "'gpu'"),
        (["doctor", "--device", "gpu"], "'gpu'"),
        (["build", "canny", "--images", "x", "--out", "o", "--device", "gpu"], "'gpu'"),
        (["verify", "d", "--device", "gpu"], "'gpu'"),
        (["subset", "d", "--sizes", "1", "--seed", str(2**64)], "--seed"),
        (["evaluate", "--run", "r", "--dataset", "d", "--seed", str(2**64)], "--seed"),
        (
            ["generate", "--base", "b", "--controlnet", "c", "--out", "o", "--seed", str(2**64)],
            "--seed",
        ),
    ],
)
def test_a_value_that_no_machine_has_is_one_message(run, command: list[str], said: str) -> None:
    shown = run(*command)
    assert shown.code == Exit.USAGE
    assert said in shown.err
    assert "Traceback" not in shown.err


def test_a_rate_beyond_all_measure_is_one_message(run, dataset: Path, tmp_path: Path) -> None:
    shown = run(
        "train", "--dataset", dataset, "--base", tmp_path, "--out", tmp_path / "r", "--steps", "1",
        "--learning-rate", "1e38",
    )  # fmt: skip
    assert shown.code == Exit.USAGE
    assert "--learning-rate" in shown.err


def test_a_dataset_may_be_named_as_its_recipe(
    run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["build", "canny", "--images", pictures, "--out", "canny", "--local"]
    command += ["--set", "captions.captioner=sidecar"]
    assert run(*command).code == Exit.DONE
    again = run(*command)
    assert again.code == Exit.DONE, again.err
    assert "nothing to do" in again.out


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (["status", "{}"], {"units_done", "samples", "rejects", "captions", "subsets"}),
        (["ls", "{}", "--limit", "2"], {"samples", "rows"}),
        (["verify", "{}"], {"good", "faults", "samples", "units"}),
        (["rejects", "{}"], {"images", "rows"}),
        (["requery", "{}", "--set", "rules.min_chroma=0"], {"before", "after", "added", "removed"}),
        (["doctor"], {"checks", "warnings", "faults"}),
    ],
)
def test_json_is_one_object_and_nothing_else(
    run, dataset: Path, command: list[str], names: set[str]
) -> None:
    shown = run(*(word.format(dataset) for word in command), "--json")
    assert shown.code == Exit.DONE, shown.err
    told = json.loads(shown.out)
    assert shown.out.count("\n") == 1
    assert names <= told.keys()
    if command[0] == "ls":
        assert len(told["rows"]) == 2


def test_a_plan_as_json(run, pictures: Path, tmp_path: Path) -> None:
    shown = run("plan", "canny", "--images", pictures, "--dry-run", "--json")
    told = json.loads(shown.out)
    assert {"units", "images", "rejects", "estimate", "captions", "passed_over"} <= told.keys()
    made = run("plan", "canny", "--images", pictures, "--out", tmp_path / "d", "--json")
    assert json.loads(made.out)["units"] == told["units"]


def test_faults_as_json(run, dataset: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    (tar,) = (copy / "shards").glob("000000*.tar")
    tar.write_bytes(tar.read_bytes()[:-2000])
    shown = run("verify", copy, "--json")
    assert shown.code == Exit.FAILED
    told = json.loads(shown.out)
    assert told["good"] is False
    assert any(tar.name in fault for fault in told["faults"])
