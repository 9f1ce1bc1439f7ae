"""Conditions that need no network: tile, grey, low quality, palette, inpainting and XDoG."""

import json
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as PILImage
from pydantic import ValidationError

from catalog.images import decode_image
from detectors.base import Annotation, Image, Spec, generator_for
from detectors.colour_palette import ColourPaletteSpec
from detectors.grey import GreySpec
from detectors.inpaint import InpaintSpec, holes
from detectors.low_quality import LowQualitySpec
from detectors.tile import TileSpec
from detectors.xdog import XdogSpec
from tests.photographs import photographs

SPECS = (TileSpec(), GreySpec(), LowQualitySpec(), ColourPaletteSpec(), XdogSpec(), InpaintSpec())


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def made_of(spec: Spec, image: Image, sha256: str = "a") -> Annotation:
    made = spec.annotate(image, None, generator_for(sha256, spec.condition, 0))
    assert isinstance(made, Annotation)
    return made


@pytest.mark.parametrize("size", [(1, 1), (3, 70), (64, 40)])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.condition)
def test_maps_have_the_image_s_size_and_depend_on_its_hash_alone(
    spec: Spec, size: tuple[int, int]
) -> None:
    image = noise(*size)
    one, again = made_of(spec, image), made_of(spec, image)
    assert (one.map.shape[:2], one.map.dtype) == (size, np.uint8)
    assert one.map.flags.c_contiguous
    assert (one.parameters, one.map.tobytes()) == (again.parameters, again.map.tobytes())


@pytest.mark.parametrize("spec", [TileSpec(), LowQualitySpec(), XdogSpec()], ids=str)
def test_draws_stay_within_their_ranges(spec: Spec) -> None:
    drawn = [made_of(spec, noise(8, 8), str(number)).parameters for number in range(50)]
    for name in drawn[0]:
        smallest, largest = getattr(spec, name)
        values = [one[name] for one in drawn]
        assert smallest <= min(values) < max(values) <= largest
        assert len(set(values)) > 10


def test_a_tile_loses_detail_by_its_factor() -> None:
    image = noise(64, 64)
    tiles = [made_of(TileSpec(factor=factor), image).map for factor in (1, 2, 8, 64)]
    spread = [float(tile.std(axis=(0, 1)).max()) for tile in tiles]
    assert spread == sorted(spread, reverse=True)
    assert (tiles[0] == image).all()
    assert spread[-1] == 0
    logarithms = [
        np.log2(made_of(TileSpec(factor=(2, 32)), noise(4, 4), str(number)).parameters["factor"])
        for number in range(400)
    ]
    assert np.mean(logarithms) == pytest.approx(3, abs=0.2)  # uniform from 1 to 5


def test_grey_is_the_luma_of_bt_601() -> None:
    image = noise(9, 9)
    luma = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(made_of(GreySpec(), image).map - luma).max() <= 1


def test_low_quality_without_loss_is_the_picture() -> None:
    smooth = cv2.GaussianBlur(noise(64, 64), (0, 0), 8)
    kept = made_of(LowQualitySpec(factor=1, noise=0, quality=100), smooth).map
    assert np.abs(kept.astype(int) - smooth).max() <= 4  # colours swapped would be far off
    worse = [
        np.abs(made_of(spec, smooth).map.astype(float) - smooth).mean()
        for spec in (
            LowQualitySpec(factor=1, noise=20, quality=90),
            LowQualitySpec(factor=1, noise=0, quality=1),
            LowQualitySpec(factor=64, noise=0, quality=90),
        )
    ]
    assert min(worse) > np.abs(kept.astype(float) - smooth).mean()


def test_a_palette_is_flat_in_its_cells() -> None:
    image = noise(64, 128)
    tiles = made_of(ColourPaletteSpec(cell=32), image).map
    for top in (0, 32):
        for left in (0, 32, 64, 96):
            cell = (slice(top, top + 32), slice(left, left + 32))
            assert len(np.unique(tiles[cell].reshape(-1, 3), axis=0)) == 1
            assert np.abs(tiles[cell][0, 0] - image[cell].mean(axis=(0, 1))).max() <= 1


def test_xdog_draws_the_edges_of_a_dark_shape_on_paper() -> None:
    image = np.full((64, 64, 3), 230, np.uint8)
    cv2.circle(image, (32, 32), 16, (160, 160, 160), -1)
    lines = made_of(XdogSpec(sigma=1), image).map
    rows, columns = np.nonzero(lines > 127)
    distances = np.hypot(rows - 32, columns - 32)
    assert len(distances) > 60
    assert (np.abs(distances - 16) <= 3).all()


@pytest.mark.parametrize("size", [(64, 96), (5, 3), (256, 256)])
def test_holes_are_where_the_parameters_say_and_the_rest_is_the_picture(
    size: tuple[int, int],
) -> None:
    image = noise(*size).clip(1)
    for number in range(20):
        made = made_of(InpaintSpec(), image, str(number))
        json.dumps(made.parameters)
        hole = holes(made.parameters, height=size[0], width=size[1])
        assert ((made.map == 0).all(axis=2) == hole).all()
        assert (made.map[~hole] == image[~hole]).all()
        assert 0 < made.parameters["masked"] == pytest.approx(hole.mean(), abs=1e-6)
        assert 1 <= len(made.parameters["strokes"]) <= 4
        for left, top, wide, high in made.parameters["boxes"]:
            assert 0 <= left <= left + wide <= size[1]
            assert 0 <= top <= top + high <= size[0]


def test_holes_of_each_kind_and_colour() -> None:
    image = noise(128, 256)
    boxes = made_of(InpaintSpec(strokes=0, boxes=3, side=0.25, fill=(255, 0, 127)), image)
    assert [box[2:] for box in boxes.parameters["boxes"]] == [[64, 32]] * 3
    assert (boxes.map[holes(boxes.parameters, height=128, width=256)] == (255, 0, 127)).all()
    stroke = made_of(InpaintSpec(strokes=1, boxes=0, width=0.1, points=2, step=0.5), image)
    (drawn,) = stroke.parameters["strokes"]
    assert (drawn["width"], len(drawn["points"])) == (13, 2)
    shares = [
        made_of(InpaintSpec(), noise(256, 256), str(number)).parameters["masked"]
        for number in range(200)
    ]
    assert 0.1 < np.mean(shares) < 0.4
    assert max(shares) < 0.8
    none = made_of(InpaintSpec(strokes=0, boxes=0), image)
    assert (none.map == image).all()


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (TileSpec, {"factor": 0.5}),
        (TileSpec, {"factor": (8, 2)}),
        (LowQualitySpec, {"quality": 0}),
        (LowQualitySpec, {"quality": (50, 101)}),
        (ColourPaletteSpec, {"cell": 1}),
        (XdogSpec, {"sigma": -1}),
        (InpaintSpec, {"side": 0}),
        (InpaintSpec, {"fill": (0, 0, 256)}),
        (InpaintSpec, {"width": (0.5, 0.1)}),
    ],
)
def test_what_makes_no_sense_is_refused(kind: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind(**fields)


def test_a_photograph_keeps_what_each_says() -> None:
    photo = decode_image(photographs()[0].read_bytes())
    tile = made_of(TileSpec(factor=8), photo).map
    assert np.abs(tile.astype(float) - photo).mean() < 30
    assert 0.005 < (made_of(XdogSpec(sigma=1), photo).map > 127).mean() < 0.6
    assert PILImage.fromarray(made_of(ColourPaletteSpec(), photo).map).getcolors(1 << 16)
