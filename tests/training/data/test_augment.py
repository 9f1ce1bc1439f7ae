"""What is drawn belongs to the index; a mirrored hint is the hint of the mirrored image."""

from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from catalog.images import decode_image
from catalog.sample import Sample
from detectors.keypoints import PoseSpec
from detectors.normal import Convention, NormalBaeSpec, NormalLabelsSpec, NormalSpec
from detectors.normal_tipsv2 import NormalTipsv2Spec
from pipeline.recipe.recipe import AnySpec
from training.data.augment import NORMALS, POSES, Augment, crop_square, flip_hint, flips
from training.data.examples import Examples
from training.data.held_out import Rows
from training.data.loader import Batch, IndexBatches, load_batches
from training.errors import DataError

CONVENTIONS = get_args(Convention)
SEED = 7


def annotate(spec, found: np.ndarray):
    height, width = found.shape[:2]
    image = np.zeros((height, width, 3), np.uint8)
    return spec.annotate(image, found, np.random.default_rng(0))


def surface(seed: int) -> np.ndarray:
    """Return unit vectors (left, up, back) in all directions, straight sideways ones too."""
    normals = np.random.default_rng(seed).normal(size=(32, 48, 3)).astype(np.float32)
    normals[:4, :4], normals[:4, 4:8] = (1, 0, 0), (0, 0, 1)
    return normals / np.linalg.norm(normals, axis=2, keepdims=True)


def seen_in_a_mirror(normals: np.ndarray) -> np.ndarray:
    mirrored = normals[:, ::-1].copy()
    mirrored[:, :, 0] *= -1
    return mirrored


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    "spec",
    [NormalLabelsSpec(axes="left_up_back"), NormalBaeSpec(), NormalTipsv2Spec()],
    ids=lambda spec: spec.detector,
)
def test_a_flipped_normal_map_is_that_of_the_flipped_scene(spec, convention):
    spec = spec.model_copy(update={"convention": convention})
    made = annotate(spec, surface(1))
    wanted = annotate(spec, seen_in_a_mirror(surface(1))).map
    flipped = flip_hint(spec.detector, made.map, made.parameters)
    off = np.abs(flipped.astype(int) - wanted)
    assert off.max() <= 1  # -1 has the level 0, as what is just above it has
    assert (off > 0).mean() < 0.01
    mirrored = np.abs(made.map[:, ::-1].astype(int) - wanted)
    assert mirrored.max() > 200


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_slopes_of_a_flipped_depth_are_the_flipped_slopes(convention):
    depth = np.random.default_rng(2).uniform(0, 400, (32, 48)).astype(np.float32)
    spec = NormalSpec(convention=convention, background=0.2)
    made = annotate(spec, depth)
    wanted = annotate(spec, depth[:, ::-1].copy()).map
    off = np.abs(flip_hint("normal", made.map, made.parameters).astype(int) - wanted)
    assert off.max() <= 1
    assert (off > 0).mean() < 0.01


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_what_has_no_normal_has_none_in_the_mirror(convention):
    hint = np.full((8, 8, 3), 127, np.uint8)
    flipped = flip_hint("normal_labels", hint, {"convention": convention})
    np.testing.assert_array_equal(flipped, hint)


hints = st.integers(0, 99).map(
    lambda seed: np.random.default_rng(seed).integers(0, 255, (5, 7, 3), dtype=np.uint8)
)


@given(
    hint=hints,
    detector=st.sampled_from(["canny", "depth", "seg_labels", *sorted(NORMALS)]),
    convention=st.sampled_from(CONVENTIONS),
)
def test_two_flips_are_none(hint, detector, convention):
    noted = {"convention": convention}
    before = hint.copy()
    once = flip_hint(detector, hint, noted)
    np.testing.assert_array_equal(flip_hint(detector, once, noted), hint)
    np.testing.assert_array_equal(hint, before)
    if detector not in NORMALS:
        np.testing.assert_array_equal(once, hint[:, ::-1])


@pytest.mark.parametrize("detector", sorted(POSES))
def test_a_pose_is_not_flipped(view_type, detector):
    with pytest.raises(DataError, match=f"{detector} cannot be flipped, .* left from right"):
        flip_hint(detector, np.zeros((8, 8, 3), np.uint8), {})
    with pytest.raises(DataError, match=f"{detector} cannot be flipped"):
        examples_of(view_type(), augment=Augment(flip=True), detector=detector)
    assert examples_of(view_type(), augment=Augment(crop=32), detector=detector)[0]


@pytest.mark.parametrize("noted", [{}, {"convention": "opengl"}])
def test_normals_of_an_unknown_convention_are_not_flipped(noted):
    with pytest.raises(DataError, match="one of midas, diode, bae; this one tells"):
        flip_hint("normal", np.zeros((8, 8, 3), np.uint8), noted)


def test_the_names_are_those_of_the_detectors():
    specs = get_args(get_args(AnySpec)[0])
    poses = [spec for spec in specs if issubclass(spec, PoseSpec)]
    assert {spec().detector for spec in poses} == POSES
    normals = (NormalSpec, NormalLabelsSpec, NormalBaeSpec, NormalTipsv2Spec)
    assert {spec().detector for spec in normals} == NORMALS


def test_a_crop_is_anywhere_in_the_image():
    squares = [crop_square((10, 9), 8, seed=SEED, index=index) for index in range(200)]
    places = {(rows.start, columns.start) for rows, columns in squares}
    assert places == {(top, left) for top in range(3) for left in range(2)}
    assert {rows.stop - rows.start for rows, _ in squares} == {8}
    assert {columns.stop - columns.start for _, columns in squares} == {8}


def test_every_other_sample_is_flipped():
    flipped = sum(flips(SEED, index) for index in range(4000))
    assert abs(flipped / 4000 - 0.5) <= 4 * (0.25 / 4000) ** 0.5


def examples_of(view, *, augment: Augment | None, detector: str | None = "canny") -> Examples:
    return Examples(
        view, "canny", seed=SEED, prompt_dropout=0, multiple=8, augment=augment, detector=detector
    )


@given(index=st.integers(0, 200), crop=st.sampled_from([None, 32, 64]), flip=st.booleans())
def test_image_and_hint_are_cropped_and_mirrored_together(view_type, index, crop, flip):
    view = view_type(sizes=((64, 128),))
    examples = examples_of(view, augment=Augment(crop=crop, flip=flip))
    example = examples[index]
    image = decode_image(view.read(examples.order.row_of(index)).image)
    if crop is not None:
        image = image[crop_square((64, 128), crop, seed=SEED, index=index)]
    if flip and flips(SEED, index):
        image = image[:, ::-1]
    np.testing.assert_array_equal(example.image, image)
    np.testing.assert_array_equal(example.hint, np.where(image > 127, 255, 0))


def batches(view, *, batch_size: int, processes: int = 1, workers: int = 0) -> list[Batch]:
    examples = examples_of(view, augment=Augment(crop=32, flip=True))
    shares = [
        IndexBatches(start=0, stop=16, batch_size=batch_size, rank=rank, processes=processes)
        for rank in range(processes)
    ]
    return [batch for share in shares for batch in load_batches(examples, share, workers=workers)]


def by_index(found: list[Batch]) -> torch.Tensor:
    indices = torch.tensor([index for batch in found for index in batch.indices])
    pixels = torch.cat([torch.cat([batch.images, batch.hints], dim=1) for batch in found])
    return pixels[indices.argsort()]


@pytest.mark.parametrize(
    "division",
    [{"batch_size": 2}, {"batch_size": 4, "processes": 2}, {"batch_size": 4, "workers": 2}],
)
def test_neither_batch_nor_process_nor_worker_changes_what_is_drawn(view_type, division):
    view = view_type(sizes=((64, 64), (64, 128)))  # a crop gives them one size, without buckets
    assert torch.equal(by_index(batches(view, **division)), by_index(batches(view, batch_size=16)))


def test_a_crop_keeps_the_order_and_needs_no_size_of_the_base(view_type):
    plain = examples_of(view_type(), augment=None)
    cropped = examples_of(view_type(sizes=((60, 77),)), augment=Augment(crop=32))
    assert [plain[index].key for index in range(12)] == [cropped[at].key for at in range(12)]


def test_the_convention_comes_from_the_sample(view_type):
    view = view_type(rows=1)
    index = next(index for index in range(50) if flips(SEED, index))
    with pytest.raises(DataError, match="this one tells None"):
        examples_of(view, augment=Augment(flip=True), detector="normal")[index]
    hint = decode_image(view.read(0).conditions["canny"])
    for convention in CONVENTIONS:
        noted = {"convention": convention}
        noting = Noting(view=view, places=(0,), name="one", noted=noted)
        examples = examples_of(noting, augment=Augment(flip=True), detector="normal")
        np.testing.assert_array_equal(examples[index].hint, flip_hint("normal", hint, noted))


@dataclass(frozen=True, kw_only=True)
class Noting(Rows):
    """Rows whose samples tell what their detector noted."""

    noted: dict[str, str]

    def read(self, index: int) -> Sample:
        return replace(self.view.read(index), metadata={"conditions": {"canny": self.noted}})


@pytest.mark.parametrize(
    ("augment", "detector", "message"),
    [
        (Augment(crop=60), "canny", "crop is 60; it must be a positive multiple of 8"),
        (Augment(crop=0), "canny", "crop is 0"),
        (Augment(flip=True), None, "flip needs the name of the detector"),
        (Augment(crop=72), "canny", "3 of 5 rows have no square of 72"),
    ],
)
def test_what_no_sample_allows_is_refused_at_once(view_type, augment, detector, message):
    view = view_type(sizes=((64, 64), (128, 128)))
    with pytest.raises(DataError, match=message):
        examples_of(view, augment=augment, detector=detector)


def test_an_image_smaller_than_told_is_refused(view_type):
    view = view_type(sizes=((64, 64),), tells_sizes=False)
    with pytest.raises(DataError, match="64x64 has no square of 72"):
        examples_of(view, augment=Augment(crop=72))[0]
