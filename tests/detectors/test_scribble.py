"""Scribbles: the published fixed version, and random ones that keep within the recipe."""

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from detectors.base import Annotation, Image, generator_for
from detectors.canny import CannySpec
from detectors.hed import HedNetwork, HedSpec
from detectors.scribble import ScribbleSpec, Synthesis, largest, limit_width, stroke_width, thinned
from tests.photographs import photographs as photographs_beside
from tests.weights import need_file

SIDE = 512


def drawn_edges(seed: int = 0, side: int = SIDE) -> np.ndarray:
    """Return soft edges such as HED's, 0..1: blurred outlines of many shapes, thick and thin."""
    generator = np.random.default_rng(seed)
    canvas = np.zeros((side, side), np.uint8)
    for _ in range(25):
        x, y, radius = (int(value) for value in generator.integers(10, side - 10, 3) // (1, 1, 5))
        level, thickness = int(generator.integers(120, 256)), int(generator.integers(2, 12))
        cv2.circle(canvas, (x, y), radius + 3, level, thickness)
        cv2.line(canvas, (x, y), (y, x), level, thickness)
    cv2.circle(canvas, (side // 2, side // 2), side // 10, 255, -1)  # a blot wider than any stroke
    return cv2.GaussianBlur(canvas, (0, 0), 1.5).astype(np.float32) / 255


def scribble(spec: ScribbleSpec, edges: np.ndarray, seed: int) -> Annotation:
    image = np.zeros((*edges.shape, 3), np.uint8)
    made = spec.annotate(image, edges, np.random.default_rng(seed))
    assert isinstance(made, Annotation)
    assert made.map.shape == edges.shape
    assert set(np.unique(made.map)) <= {0, 255}
    return made


@pytest.mark.usefixtures("controlnet_aux_quiet")
def test_the_fixed_version_is_the_published_one(photographs: list[Image]) -> None:
    from controlnet_aux.util import nms

    thick = [cv2.dilate(cv2.Canny(image, 80, 160), np.ones((9, 9))) for image in photographs]
    soft = [cv2.GaussianBlur(edges, (0, 0), 2) for edges in thick]
    for grey in [*soft, np.uint8(255 * drawn_edges())]:
        theirs = cv2.GaussianBlur(nms(grey, 127, 3.0), (0, 0), 3.0)
        theirs = np.where(theirs > 4, 255, 0)
        ours = scribble(ScribbleSpec(mode="fixed"), grey.astype(np.float32) / 255, 0)
        assert (ours.map != theirs).mean() <= 0.001
        assert ours.map.any()


def test_500_draws_keep_within_the_recipe() -> None:
    ranges = Synthesis()
    edges = [drawn_edges(seed) for seed in range(5)]
    seen: Counter[str] = Counter()
    shares, coverages = [], []
    for seed in range(500):
        made = scribble(ScribbleSpec(), edges[seed % 5], seed)
        drawn = made.parameters
        assert ranges.threshold[0] <= drawn["threshold"] <= ranges.threshold[1]
        assert ranges.sigma[0] <= drawn["sigma"] <= ranges.sigma[1]
        assert ranges.radius[0] <= drawn["radius"] <= ranges.radius[1]
        assert ranges.mask_out[0] <= drawn["mask_out"] <= ranges.mask_out[1]
        seen[drawn["morphology"]] += 1
        seen["nms"] += drawn["nms"]
        shares.append(drawn["mask_out"])
        coverage = (made.map > 0).mean()
        coverages.append(coverage)
        assert coverage < 0.6
        if coverage:
            assert 1 <= stroke_width(made.map > 0) <= 24
    assert 200 < seen["nms"] < 300
    assert all(80 < seen[how] < 170 for how in ranges.morphology)
    assert 0.2 < np.mean(shares) < 0.3
    assert np.mean(np.array(coverages) > 0.005) > 0.9  # strokes remain
    assert np.std(coverages) > 0.02  # and differ


def pieces(strokes: np.ndarray) -> int:
    return cv2.connectedComponents(strokes.astype(np.uint8), connectivity=8)[0] - 1


def stay_whole(edges: list[np.ndarray]) -> None:
    """Assert over 500 draws that a map has no more pieces than strokes were drawn."""
    found: dict[str, list[float]] = {}
    for seed in range(500):
        made = scribble(ScribbleSpec(), edges[seed % len(edges)], seed)
        drawn = made.parameters
        strokes = drawn["strokes"] - int(drawn["mask_out"] * drawn["strokes"])
        left = pieces(made.map > 0)
        assert left <= strokes, (seed, drawn)
        assert left or not strokes, (seed, drawn)
        found.setdefault(drawn["morphology"], []).append(left / max(1, strokes))
    for how in ("erode", "open"):  # which neither merge strokes nor lose one
        assert np.median(found[how]) > 0.5


def test_strokes_stay_whole_on_drawn_edges() -> None:
    stay_whole([drawn_edges(seed, 256) for seed in range(5)])


def test_strokes_stay_whole_on_hed_of_photographs() -> None:
    need_file("hed_bsds500")
    some = photographs_beside()
    cells = [_cell(path) for path in some[:: max(1, len(some) // 8)][:8]]
    stay_whole([HedNetwork().load("cpu", "fp32")(cell[None])[0] for cell in cells])


def _cell(path: Path, side: int = 256) -> Image:
    """Return the middle of a photograph, its short side brought to `side` pixels."""
    with PIL.Image.open(path) as opened:
        square = PIL.ImageOps.fit(opened.convert("RGB"), (side, side), PIL.Image.Resampling.LANCZOS)
    return np.array(square)


def test_thinning_keeps_every_stroke_in_one_piece() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        noise = cv2.GaussianBlur(generator.random((96, 96)), (0, 0), 2.0)
        strokes = noise > np.quantile(noise, 0.6)
        line = thinned(strokes)
        assert pieces(line) == pieces(strokes)
        assert not (line & ~strokes).any()
    assert not thinned(np.zeros((8, 8), bool)).any()
    bar = np.zeros((40, 100), bool)
    bar[10:30, 10:90] = True
    assert stroke_width(thinned(bar)) <= 3


def test_the_largest_pieces_are_kept() -> None:
    ring = np.zeros((200, 200), bool)
    ring[20:180, 20:180] = True
    ring[80:120, 80:120] = False
    outlines = limit_width(ring, 24)
    assert pieces(outlines) == 2  # the hole's, too
    assert (largest(outlines, 2) == outlines).all()
    outer = largest(outlines, 1)
    assert pieces(outer) == 1
    assert outer[20, 100]
    assert not largest(outlines, 0).any()


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_mask_out_leaves_out_that_share_of_the_strokes(share: float) -> None:
    edges = np.zeros((SIDE, SIDE), np.float32)
    edges[20::40, 40:-40] = 1  # 13 strokes
    edges = cv2.dilate(edges, np.ones((9, 1)))
    synthesis = Synthesis(mask_out=share, nms=0, morphology=(), sigma=1.0, threshold=100)
    made = scribble(ScribbleSpec(synthesis=synthesis), edges, 1)
    left = cv2.connectedComponents(made.map)[0] - 1
    assert made.parameters["strokes"] == 13
    assert left == 13 - int(share * 13)


def test_the_same_seed_gives_the_same_bytes_in_another_process() -> None:
    code = """
import hashlib
from detectors.base import generator_for
from detectors.scribble import ScribbleSpec
from tests.detectors.test_scribble import drawn_edges
import numpy as np
made = ScribbleSpec().annotate(
    np.zeros((512, 512, 3), np.uint8), drawn_edges(), generator_for("ab", "scribble", 5)
)
print(hashlib.sha256(made.map.tobytes() + repr(made.parameters).encode()).hexdigest())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    made = ScribbleSpec().annotate(
        np.zeros((SIDE, SIDE, 3), np.uint8), drawn_edges(), generator_for("ab", "scribble", 5)
    )
    assert isinstance(made, Annotation)
    digest = hashlib.sha256(made.map.tobytes() + repr(made.parameters).encode()).hexdigest()
    assert done.stdout.strip() == digest


def test_lengths_scale_with_the_image() -> None:
    for seed in range(40):
        made = scribble(ScribbleSpec(), drawn_edges(1, 128), seed)
        assert stroke_width(made.map > 0) <= 24 * 128 / SIDE


def test_a_wide_blot_becomes_an_outline() -> None:
    blot = np.zeros((100, 100), bool)
    blot[20:80, 20:80] = True
    outline = limit_width(blot, 24)
    assert not outline[50, 50]
    assert outline[21, 50]
    assert stroke_width(outline) <= 24
    thin = np.zeros((100, 100), bool)
    thin[40:64] = True
    assert (limit_width(thin, 24) == thin).all()


def test_no_edges_give_an_empty_map() -> None:
    made = scribble(ScribbleSpec(), np.zeros((64, 64), np.float32), 0)
    assert not made.map.any()
    assert made.parameters["strokes"] == 0
    assert not scribble(ScribbleSpec(mode="fixed"), np.zeros((64, 64), np.float32), 0).map.any()


def test_scribble_and_hed_share_one_network() -> None:
    assert ScribbleSpec().network == HedSpec().network == HedNetwork()
    assert ScribbleSpec(checkpoint="controlnet_hed").network != HedSpec().network
    assert CannySpec().network is None


@pytest.mark.parametrize(
    "fields",
    [{"threshold": (190, 64)}, {"nms": 1.5}, {"morphology": ("melt",)}, {"sigma": -1}, {"x": 1}],
)
def test_impossible_ranges_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Synthesis(**fields)
