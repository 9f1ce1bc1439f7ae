"""`generate` on a base with random weights: what is written, and what each option promises."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from catalog.dataset.dataset import Dataset
from pipeline.commands import cli
from pipeline.errors import Exit
from pipeline.generate import paint as pictures_module
from tests.random_base import write_random_base
from training.data.held_out import FILE, choose_held_out, write_held_out
from training.model.base import load_base
from training.model.controlnet import new_controlnet
from training.model.denoiser import Denoiser
from training.sample.prompts import DEFAULT_PROMPT

SIZE = (96, 64)  # width, height


class Models:
    """A base, and two ControlNets whose outputs are not zero."""

    def __init__(self, folder: Path) -> None:
        self.base = folder / "base"
        write_random_base(str(self.base), resolutions=2, layers=1)
        self.runs = [self._learned(folder / f"run{seed}", seed) for seed in range(2)]

    def _learned(self, folder: Path, seed: int) -> Path:
        network = new_controlnet(load_base(str(self.base)), seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in network.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.2, generator=generator)
        network.save_pretrained(folder)
        return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a map, a photo, masks, and files that are wrong in one way each."""
    folder = tmp_path_factory.mktemp("files")
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (8, 12, 3), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize(SIZE, Image.Resampling.NEAREST)
    photo.save(folder / "photo.png")
    lines = np.where(generator.random((64, 96)) > 0.9, 255, 0).astype(np.uint8)
    Image.fromarray(lines).save(folder / "map.png")
    Image.fromarray(lines.T.copy()).save(folder / "upright.png")
    mask = np.zeros((64, 96), np.uint8)
    mask[16:48, 32:64] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(folder / "black.png")
    Image.fromarray(np.zeros((60, 90), np.uint8)).save(folder / "odd.png")
    (folder / "text.png").write_text("no picture")
    return folder


@pytest.fixture
def generate(
    models: Models,
    files: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[int, str]]:
    """Call the command in the folder of files; return the exit code and what it said."""

    def call(*arguments: object, networks: int = 1) -> tuple[int, str]:
        monkeypatch.chdir(files)
        runs = [word for run in models.runs[:networks] for word in ("--controlnet", run)]
        fixed = [*runs, "--base", models.base, "--out", tmp_path / "out", "--steps", 2]
        words = ["controlnet-factory", "generate", *fixed, *arguments]
        monkeypatch.setattr("sys.argv", [str(word) for word in words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        said = shown.out + shown.err
        assert "Traceback" not in said
        return int(ended.value.code or 0), said

    return call


@pytest.fixture
def made(generate: Callable[..., tuple[int, str]], tmp_path: Path) -> Callable[..., list[dict]]:
    """Call the command, which must succeed; return the rows of its record."""

    def call(*arguments: object, networks: int = 1) -> list[dict]:
        code, said = generate(*arguments, networks=networks)
        assert code == Exit.DONE, said
        return json.loads((tmp_path / "out" / "generated.json").read_text())["rows"]

    return call


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_pictures_grid_and_record_are_written(made, generate, tmp_path: Path) -> None:
    (row,) = made("--image", "map.png", "--seed", 1, "--seed", 2)
    (one,) = row["passes"]
    names = ["map-seed1.png", "map-seed2.png"]
    assert [picture["file"] for picture in one["pictures"]] == names
    assert {picture["prompt"] for picture in one["pictures"]} == {DEFAULT_PROMPT}
    assert one["controlnet_calls"] == 2
    pictures = [read(tmp_path / "out" / name) for name in names]
    assert pictures[0].shape == (64, 96, 3)
    assert not np.array_equal(*pictures)
    assert read(tmp_path / "out" / "grid.png").shape[1] > 3 * 2 * 96  # enlarged: they are small
    settings = json.loads((tmp_path / "out" / "generated.json").read_text())["settings"]
    assert (settings["cfg"], settings["steps"], settings["seed"]) == (9.0, 2, [1, 2])
    generate("--image", "map.png", "--seed", 1)
    np.testing.assert_array_equal(read(tmp_path / "out" / names[0]), pictures[0])


def test_each_map_has_its_row(made, files: Path) -> None:
    (files / "more").mkdir(exist_ok=True)
    (files / "more" / "map.png").write_bytes((files / "map.png").read_bytes())
    rows = made("--image", "map.png", "--image", "upright.png", "--image", "more/map.png")
    assert [row["name"] for row in rows] == ["map", "upright", "map-2"]


def test_the_first_half_of_20_steps_is_10_controlnet_calls(made, generate) -> None:
    (row,) = made("--image", "map.png", "--window", 0, 0.5, "--steps", 20)
    assert row["passes"][0]["controlnet_calls"] == 10
    assert (
        "10 ControlNet calls"
        in generate("--image", "map.png", "--window", 0, 0.5, "--steps", 20)[1]
    )


def test_seeds_at_once_give_the_same_pictures_within_a_grey_level(made, tmp_path: Path) -> None:
    names = [f"map-seed{seed}.png" for seed in (1, 2, 3)]
    seeds = ("--seed", 1, "--seed", 2, "--seed", 3)
    made("--image", "map.png", *seeds)
    alone = [read(tmp_path / "out" / name) for name in names]
    (row,) = made("--image", "map.png", *seeds, "--batch-size", 2)
    assert row["passes"][0]["controlnet_calls"] == 2
    for name, picture in zip(names, alone, strict=True):
        np.testing.assert_allclose(read(tmp_path / "out" / name), picture.astype(int), atol=1)


@pytest.mark.parametrize(
    ("arguments", "prompt"),
    [
        (["--prompt", "a cat"], "a cat"),
        (["--prompt-mode", "user", "--prompt", "a cat"], "a cat"),
        (["--prompt-mode", "none"], ""),
        (["--prompt-mode", "default"], DEFAULT_PROMPT),
    ],
)
def test_prompt_modes(made, arguments: list[str], prompt: str) -> None:
    (row,) = made("--image", "map.png", *arguments)
    assert row["passes"][0]["pictures"][0]["prompt"] == prompt


def test_automatic_prompts_come_from_what_the_captioner_saw(
    made, random_blip: Path, tmp_path: Path
) -> None:
    (row,) = made(
        *("--image", "map.png", "--prompt-mode", "automatic", "--captioner", random_blip),
        *("--seed", 1, "--seed", 2),
    )
    first, second = row["passes"]
    assert (first["prompt_mode"], second["prompt_mode"]) == ("default", "automatic")
    assert (first["controlnet_calls"], second["controlnet_calls"]) == (2, 2)
    for before, after in zip(first["pictures"], second["pictures"], strict=True):
        assert before["prompt"] == DEFAULT_PROMPT
        assert after["prompt"] not in ("", DEFAULT_PROMPT)
        made_first, made_second = (tmp_path / "out" / one["file"] for one in (before, after))
        assert not np.array_equal(read(made_first), read(made_second))


def test_a_condition_is_detected_in_a_picture_and_written(made, tmp_path: Path) -> None:
    (row,) = made("--source", "photo.png", "--detect", "canny", "--resolution", 64)
    assert row["detected"] == ["photo.canny.png"]
    assert set(np.unique(read(tmp_path / "out" / "photo.canny.png"))) == {0, 255}


def test_several_controlnets_have_a_map_and_a_scale_each(made, tmp_path: Path) -> None:
    maps = ("--image", "map.png", "--image", "photo.png")
    (row,) = made(*maps, networks=2)
    assert row["passes"][0]["controlnet_calls"] == 4
    both = read(tmp_path / "out" / "map-seed0.png")
    made(*maps, "--scale", 1, "--scale", 0, networks=2)
    without_second = read(tmp_path / "out" / "map-seed0.png")
    made("--image", "map.png")
    np.testing.assert_array_equal(without_second, read(tmp_path / "out" / "map-seed0.png"))
    assert not np.array_equal(both, without_second)


@pytest.mark.parametrize("weighting", [["--guess"], ["--weighting", "resolution"]])
def test_weightings_change_the_picture(made, weighting: list[str], tmp_path: Path) -> None:
    made("--image", "map.png")
    even = read(tmp_path / "out" / "map-seed0.png")
    made("--image", "map.png", *weighting)
    assert not np.array_equal(even, read(tmp_path / "out" / "map-seed0.png"))


def test_bf16_gives_nearly_the_same_picture(made, tmp_path: Path) -> None:
    made("--image", "map.png", "--scale", 0.1, "--cfg", 2)
    full = read(tmp_path / "out" / "map-seed0.png").astype(int)
    edit = ("--edit", "photo.png", "--mask", "mask.png")
    made("--image", "map.png", "--precision", "bf16", *edit)  # all parts take the dtype
    made("--image", "map.png", "--scale", 0.1, "--cfg", 2, "--precision", "bf16")
    half = read(tmp_path / "out" / "map-seed0.png")
    assert 0 < np.abs(full - half).mean() < 4


@pytest.mark.parametrize("paste", ["--paste", "--no-paste"])
def test_white_is_repainted_and_black_is_kept(
    made, files: Path, paste: str, tmp_path: Path
) -> None:
    made("--image", "map.png", "--edit", "photo.png", "--mask", "mask.png", paste)
    picture, photo = read(tmp_path / "out" / "map-seed0.png"), read(files / "photo.png")
    kept = read(files / "mask.png")[:, :, 0] == 0
    assert np.array_equal(picture[kept], photo[kept]) == (paste == "--paste")
    assert not np.array_equal(picture[~kept], photo[~kept])


def test_a_datasets_first_samples_are_sampled_with_their_captions(
    made, make, pictures: Path, tmp_path: Path
) -> None:
    make(pictures, tmp_path / "d")
    Dataset.open(str(tmp_path / "d")).write_subset(4, policy="top", seed=0)
    from_dataset = ("--dataset", tmp_path / "d", "--subset", "4")
    rows = made(*from_dataset, "--count", 3, "--prompt-mode", "user")
    view = Dataset.open(str(tmp_path / "d")).view("4")
    samples = [view.read(index) for index in range(3)]
    assert [row["name"] for row in rows] == [sample.key[:8] for sample in samples]
    prompts = [row["passes"][0]["pictures"][0]["prompt"] for row in rows]
    assert prompts == [sample.caption for sample in samples]
    assert len(made(*from_dataset, "--count", 9, "--condition", "canny")) == 4


def test_held_out_rows_are_those_of_the_run(
    models: Models, made, generate, make, pictures: Path, tmp_path: Path
) -> None:
    make(pictures, tmp_path / "d")
    keys = choose_held_out(Dataset.open(str(tmp_path / "d")).view().keys(), 3)
    asked = ("--dataset", tmp_path / "d", "--split", "held-out")
    code, said = generate(*asked)
    assert (code, "held nothing out" in said) == (Exit.USAGE, True)
    write_held_out(models.runs[0], keys)
    try:
        rows = made(*asked, "--count", 2)
    finally:
        (models.runs[0] / FILE).unlink()
    assert [row["name"] for row in rows] == [key[:8] for key in keys[:2]]


def test_an_unlocked_runs_own_unet_is_sampled(
    models: Models, generate, made, tmp_path: Path
) -> None:
    made("--image", "map.png")
    locked = read(tmp_path / "out" / "map-seed0.png")
    unet = copy.deepcopy(load_base(str(models.base)).unet)
    torch.nn.init.constant_(unet.conv_out.bias, 0.5)
    folders = [run / "unet" for run in models.runs]
    for folder in folders:
        unet.save_pretrained(folder)
    try:
        made("--image", "map.png")
        code, said = generate("--image", "map.png", "--image", "photo.png", networks=2)
    finally:
        for folder in folders:
            shutil.rmtree(folder)
    assert not np.array_equal(locked, read(tmp_path / "out" / "map-seed0.png"))
    assert (code, "only one can be used" in said) == (Exit.USAGE, True)


class Whole(Denoiser):
    """A UNet of another method, which takes its condition by itself."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, noisy, timesteps, text, hint):
        return self.unet(noisy + hint.mean(), timesteps, text.tokens, return_dict=False)[0]


def test_a_whole_unet_goes_alone(made, generate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        pictures_module, "load_denoiser", lambda folder, base, *, trains: Whole(base.unet)
    )
    assert made("--image", "map.png")[0]["passes"][0]["controlnet_calls"] == 0
    for steered in (["--window", 0, 0.5], ["--scale", 0.5], ["--guess"]):
        code, said = generate("--image", "map.png", *steered)
        assert (code, "it goes alone" in said) == (Exit.USAGE, True)


_MAP = ["--image", "map.png"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give one of the three, got none"),
        ([*_MAP, "--source", "photo.png", "--detect", "canny"], "got --image and --source"),
        (["--source", "photo.png"], "--source and --detect go together"),
        ([*_MAP, "--detect", "canny"], "--source and --detect go together"),
        (["--source", "photo.png", "--detect", "cany"], "did you mean 'canny'"),
        (["--source", "photo.png", *["--detect", "canny"] * 2], "1 --controlnet but 2 --detect"),
        (["--source", "photo.png", "--detect", "canny", "--set", "canny.lo=1"], "--set"),
        ([*_MAP, "--set", "canny.low=1"], "--detect NAME"),
        (["--image", "no.png"], "--image no.png does not exist"),
        (["--image", "text.png"], "--image text.png is no usable image"),
        (["--image", "."], "--image . cannot be read"),
        (["--image", "odd.png"], "odd: the condition is 90x60; height and width must be mult"),
        ([*_MAP, "--base", "nowhere"], "cannot load the base model 'nowhere'"),
        ([*_MAP, "--mask", "mask.png"], "--mask needs --edit"),
        ([*_MAP, "--edit", "photo.png"], "--edit needs --mask"),
        ([*_MAP, "--edit", "photo.png", "--mask", "odd.png"], "mask is 90x60, the condition 96x64"),
        ([*_MAP, "--edit", "odd.png", "--mask", "mask.png"], "picture to edit is 90x60"),
        ([*_MAP, "--edit", "photo.png", "--mask", "black.png"], "all black"),
        ([*_MAP, "--edit", "photo.png", "--mask", "text.png"], "--mask text.png is no usable"),
        ([*_MAP, "--window", "0.5", "0.2"], "--window 0.5 0.2: expected shares"),
        ([*_MAP, "--window", "0", "50"], "--window 0 50: expected shares"),
        ([*_MAP, "--window", "0.5", "0.5"], "--window 0.5 0.5: expected shares"),
        ([*_MAP, "--window", "nan", "1"], "--window nan 1: expected shares"),
        ([*_MAP, "--window", "0.1", "0.2"], "no whole step of 2 lies in the window"),
        ([*_MAP, *["--scale", "1"] * 2], "1 --controlnet but 2 --scale"),
        ([*_MAP, "--prompt-mode", "user"], "--prompt-mode user needs --prompt"),
        ([*_MAP, "--prompt-mode", "none", "--prompt", "a"], "takes no --prompt"),
        ([*_MAP, "--prompt-mode", "best"], "--prompt-mode 'best'"),
        ([*_MAP, "--weighting", "odd"], "--weighting 'odd'"),
        ([*_MAP, "--steps", "0"], "--steps 0"),
        ([*_MAP, "--cfg", "-1"], "--cfg -1.0"),
        ([*_MAP, "--device", "warp"], "--device 'warp' is unknown; expected cpu or cuda"),
        ([*_MAP, "--precision", "int8"], "--precision 'int8'"),
        ([*_MAP, "--subset", "1k"], "give --dataset FOLDER"),
        (["--dataset", "d", "--subset", "1k", "--split", "held-out"], "--subset goes with"),
        (["--dataset", "nowhere"], "no dataset at nowhere"),
        (
            [*_MAP, "--prompt-mode", "automatic", "--captioner", "./no"],
            "no captioner in the folder",
        ),
        ([*_MAP, "--prompt-mode", "automatic", "--captioner", "blip"], "--captioner blip"),
    ],
)
def test_a_request_that_cannot_be_met_is_one_message(
    generate, arguments: list[str], said: str, tmp_path: Path
) -> None:
    code, message = generate(*arguments)
    assert code in (Exit.USAGE, Exit.FAILED)
    assert said in message
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_controlnet_is_named(generate, tmp_path: Path) -> None:
    code, message = generate(*_MAP, "--controlnet", tmp_path, networks=0)
    assert code == Exit.FAILED
    assert f"{str(tmp_path)!r} holds" in message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (_MAP, "2 --controlnet but 1 --image"),
        (["--source", "photo.png", "--detect", "canny"], "2 --controlnet but 1 --detect"),
        ([*_MAP, "--image", "upright.png"], "one size, got"),
    ],
)
def test_maps_must_pair_with_controlnets(generate, arguments: list[str], said: str) -> None:
    code, message = generate(*arguments, networks=2)
    assert code in (Exit.USAGE, Exit.FAILED)
    assert said in message


def test_a_missing_captioner_says_how_to_get_it(
    generate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("CONTROLNET_FACTORY_WEIGHTS", raising=False)
    code, message = generate(*_MAP, "--prompt-mode", "automatic")
    assert code == Exit.FAILED
    assert "Salesforce/blip-image-captioning-base" in message
    assert "hf download" in message


def test_what_a_prompt_does_not_do_is_told(generate) -> None:
    code, said = generate("--image", "map.png", "--prompt", "a (red:1.3) car", "--seed", 1)
    assert code == Exit.DONE
    assert "no prompt is weighted here: (red:1.3)" in said
    code, said = generate("--image", "map.png", "--seed", -1)
    assert code == Exit.USAGE
    assert "--seed -1:" in said
