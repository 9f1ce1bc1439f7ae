"""A few images, their maps as files, and one sheet to look at."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from catalog.images import decode_image
from pipeline.commands import cli
from pipeline.errors import UsageError
from pipeline.sheet.sheet import known_detectors, specs_of


def run(*arguments: object) -> str:
    done = CliRunner().invoke(cli.app, ["annotate", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


def test_maps_have_the_shape_of_their_image_and_names_stay_apart(
    pictures: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, size in (("a.png", (200, 100)), ("a.bmp", (100, 200))):
        Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)).save(
            folder / name
        )
    (folder / "text.jpg").write_bytes(b"no picture")
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    shown = run(
        folder, "--conditions", "canny,lsd", "--out", out, "--sheet", sheet, "--resolution", 64,
        "--set", "canny.low=77",
    )  # fmt: skip
    assert "text" in shown
    made = {path.name: path for path in out.iterdir()}
    assert {name for name in made if name.endswith("canny.png")} == {
        "a-bmp.canny.png",
        "a-png.canny.png",
    }
    shapes = {decode_image(path.read_bytes()).shape for path in out.glob("*.png")}
    assert shapes == {(64, 128, 3), (128, 64, 3)}
    for path in out.glob("*.json"):
        assert json.loads(path.read_text())["canny"]["low"] == 77
    page = decode_image(sheet.read_bytes())
    assert page.shape[0] > 3 * 128
    assert page.shape[1] > 3 * 128


def test_a_drawn_value_depends_on_the_image_and_the_seed(pictures: Path, tmp_path: Path) -> None:
    image = pictures / "odd" / "01.jpg"
    records = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / str(number)
        run(image, "--conditions", "canny", "--out", out, "--seed", seed, "--resolution", 64)
        records.append((out / "01.json").read_bytes())
    assert records[0] == records[1] != records[2]


@pytest.mark.parametrize(
    ("names", "overrides", "said"),
    [
        (["cany"], [], "did you mean 'canny'"),
        (["canny"], ["hed.safe=true"], "for a detector asked"),
        (["canny"], ["canny.lo=1"], "lo"),
        (["canny"], ["canny.low=-1"], "low"),
        (["seg_labels"], [], "looks at images"),
    ],
)
def test_a_wrong_detector_or_field_is_named(
    names: list[str], overrides: list[str], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        specs_of(names, overrides)


def test_every_detector_that_looks_at_images_is_known() -> None:
    assert {"canny", "hed", "scribble", "lsd", "mlsd", "depth"} <= set(known_detectors())
    assert "seg_labels" not in known_detectors()


def test_equal_names_in_other_folders_stay_apart(tmp_path: Path) -> None:
    for number, name in enumerate(("cat/0001.jpg", "dog/0001.jpg", "dog/0001.png", "top.jpg")):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    run(tmp_path / "in", "--conditions", "canny", "--out", tmp_path / "out", "--resolution", 64)
    made = {path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.rglob("*.canny.png")}
    assert made == {
        "cat/0001.canny.png", "dog/0001-jpg.canny.png", "dog/0001-png.canny.png", "top.canny.png"
    }  # fmt: skip
    separate = [tmp_path / "in" / name for name in ("cat", "dog")]
    run(*separate, "--conditions", "canny", "--out", tmp_path / "two", "--resolution", 64)
    assert len(list((tmp_path / "two").rglob("*.canny.png"))) == 3
