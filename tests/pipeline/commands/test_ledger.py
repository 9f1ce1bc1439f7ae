"""`rejects` and `requery` as they are typed, on a dataset whose rejects have hostile names."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import differences
from pipeline.commands import cli
from pipeline.errors import Exit
from tests.photographs import photographs
from tests.weights import need_file

_SMALL = ["image.resolution=64", "rules.min_sharpness=0"]


def _words(overrides: list[str]) -> list[str]:
    return [word for one in overrides for word in ("--set", one)]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger") / "in"
    folder.mkdir()
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        if number >= 3:  # the colour fades from 60 to 10 of 100
            grey = noise.mean(axis=2, keepdims=True)
            noise = (grey + (noise - grey) * (0.6, 0.3, 0.1)[number - 3]).astype(np.uint8)
        name = f"{number}.png" if number < 5 else "[red]\x1b[31m\u202e.png"
        Image.fromarray(noise).save(folder / name)
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["controlnet-factory", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "300")
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return call


@pytest.fixture
def dataset(images: Path, tmp_path: Path, run: Any) -> Path:
    limits = _words([*_SMALL, "rules.min_chroma=20"])
    arguments = ["--local", "--images", images, "--out", tmp_path / "d", *limits]
    assert run("build", "canny", "--set", "captions.captioner=sidecar", *arguments)[0] == Exit.DONE
    return tmp_path / "d"


def test_rejects_are_counted_with_their_values(dataset: Path, run: Any) -> None:
    for arguments in ([], ["--by", "rule"]):
        code, shown, _ = run("rejects", dataset, *arguments)
        assert code == Exit.DONE
        assert "1  rejected:greyscale  " in shown
        assert ", threshold 20" in shown
        assert "1  images gave no sample" in shown


def test_the_images_of_a_rule_are_listed_without_what_a_terminal_obeys(
    dataset: Path, run: Any
) -> None:
    code, shown, _ = run("rejects", dataset, "--rule", "greyscale", "--limit", 5)
    assert code == Exit.DONE
    assert " / 20  file:///" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "1 of 1 images" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rule", "blurr"], "no image was rejected by 'blurr'; statuses here: rejected:greys"),
        (["--by", "colour"], "--by 'colour' is unknown; expected rule"),
    ],
)
def test_a_wrong_question_is_answered(
    dataset: Path, run: Any, arguments: list[str], said: str
) -> None:
    code, _, told = run("rejects", dataset, *arguments)
    assert code == Exit.USAGE
    assert said in told


def test_requery_tells_and_the_saved_recipe_builds_it(
    dataset: Path, images: Path, tmp_path: Path, run: Any
) -> None:
    saved = tmp_path / "new.yaml"
    arguments = ["--set", "rules.min_chroma=0", "--set", "rules.max_coverage=0.99"]
    code, shown, _ = run("requery", dataset, *arguments, "--save", saved)
    assert code == Exit.DONE
    assert "1 -> 0" in shown
    assert "to be annotated" in shown
    assert f"build {saved} --source {dataset}/source.parquet --reuse {dataset} --out NEW" in shown
    source = ["--source", dataset / "source.parquet", "--reuse", dataset]
    assert run("build", saved, "--local", *source, "--out", tmp_path / "new")[0] == Exit.DONE
    fresh = ["--local", "--images", images, "--out", tmp_path / "fresh"]
    overrides = _words([*_SMALL, "rules.min_chroma=0", "rules.max_coverage=0.99"])
    assert (
        run("build", "canny", "--set", "captions.captioner=sidecar", *fresh, *overrides)[0]
        == Exit.DONE
    )
    assert differences(str(tmp_path / "fresh"), str(tmp_path / "new")) == []


def test_a_real_networks_people_are_judged_again_without_it(tmp_path: Path, run: Any) -> None:
    """MobileNet-thin on photographs: a lower fraction lets in whom a higher one had kept out."""
    need_file("openpose_mobilenet_thin")
    (tmp_path / "in").mkdir()
    for path in [path for path in photographs() if path.stem in ("000000000785", "000000197388")]:
        shutil.copy(path, tmp_path / "in")
    (tmp_path / "light.yaml").write_text("name: light\ndetectors: [{detector: openpose_light}]\n")
    command = ["build", tmp_path / "light.yaml", "--local", "--images", tmp_path / "in"]
    command += ["--set", "image.resolution=256", "--set"]
    low, high = "detectors.0.fraction=0.3", "detectors.0.fraction=0.95"
    assert run(*command, high, "--out", tmp_path / "high")[0] == Exit.DONE
    reuse = [low, "--reuse", tmp_path / "high"]
    assert run(*command, *reuse, "--out", tmp_path / "low")[0] == Exit.DONE
    (log,) = (tmp_path / "low" / "logs").glob("*.jsonl")
    assert '"network_images": 0' in log.read_text()
    assert run(*command, low, "--out", tmp_path / "fresh")[0] == Exit.DONE
    assert differences(str(tmp_path / "low"), str(tmp_path / "fresh")) == []
    few, more = (len(Dataset.open(str(tmp_path / name)).view()) for name in ("high", "low"))
    assert few < more


def test_requery_of_something_else_than_a_rule_is_refused(dataset: Path, run: Any) -> None:
    code, _, told = run("requery", dataset, "--set", "seed=4")
    assert code == Exit.USAGE
    assert "the ledger cannot tell" in told
    code, _, told = run("requery", dataset, "--set", "rules.min_chrome=4")
    assert code == Exit.USAGE
    assert "did you mean 'min_chroma'" in told


def test_near_duplicates_are_found_through_a_scan_with_hashes(
    images: Path, tmp_path: Path, run: Any
) -> None:
    table = tmp_path / "source.parquet"
    assert run("scan", "--images", images, "--out", table, "--perceptual")[0] == Exit.DONE
    overrides = _words([*_SMALL, "rules.near_duplicates=8", "rules.min_chroma=0"])
    arguments = ["--local", "--source", table, "--out", tmp_path / "d", *overrides]
    assert run("build", "canny", "--set", "captions.captioner=sidecar", *arguments)[0] == Exit.DONE
    plain = tmp_path / "plain.parquet"
    assert run("scan", "--images", images, "--out", plain)[0] == Exit.DONE
    code, _, told = run("plan", "canny", "--source", plain, "--dry-run", *overrides)
    assert code == Exit.USAGE
    assert "scan --perceptual" in told


def test_failed_images_are_tried_again(images: Path, tmp_path: Path, run: Any) -> None:
    source, out = tmp_path / "in", tmp_path / "d"
    shutil.copytree(images, source)
    limits = _words([*_SMALL, "captions.captioner=sidecar"])
    build = ["build", "canny", "--local", "--images", source, "--out", out, *limits]
    assert run("plan", "canny", "--images", source, "--out", out, *limits)[0] == Exit.DONE
    (source / "1.png").rename(tmp_path / "1.png")
    code, _, told = run("retry-failed", out, "--local")
    assert code == Exit.FAILED
    assert "is not finished, 1 of 1 units are to be done: run its build command" in told
    assert run(*build)[0] == Exit.FAILURES
    assert run("subset", out, "--sizes", "2")[0] == Exit.DONE
    code, shown, told = run("retry-failed", out, "--local")
    assert code == Exit.FAILURES
    still = "1 failed:FileNotFoundError"
    assert f"tried again: {still}; still failed: {still}" in shown
    assert "rejects" in told
    (tmp_path / "1.png").rename(source / "1.png")
    code, shown, _ = run("retry-failed", out, "--local")
    assert code == Exit.DONE
    assert f"tried again: {still}; still failed: none" in shown
    assert "cut again where it was needed: 2" in shown
    assert run("verify", out)[0] == Exit.DONE
    code, shown, _ = run("retry-failed", out, "--local")
    assert (code, shown.split(":")[0]) == (Exit.DONE, "nothing to do")
    assert "complete" in run(*build)[1]


def test_a_recipe_of_another_version_is_one_message(
    dataset: Path, tmp_path: Path, run: Any
) -> None:
    path = dataset / "recipe.json"
    kept = json.loads(path.read_text())
    kept["recipe"]["rules"]["of_tomorrow"] = 1
    path.write_text(json.dumps(kept))
    reuse = ["build", "canny", "--local", "--images", dataset, "--reuse", dataset]
    for command in (
        ["requery", dataset, "--set", "rules.min_chroma=5"],
        ["verify", dataset, "--rebuild", 1],
        ["explain", dataset, "0.png"],
        ["retry-failed", dataset, "--local"],
        [*reuse, "--set", "captions.captioner=sidecar", "--out", tmp_path / "new"],
    ):
        code, _, said = run(*command)
        assert code == Exit.USAGE, command
        assert "is of another version, and does not validate: rules.of_tomorrow" in said
