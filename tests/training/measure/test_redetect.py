"""Conditions are found again with the values that were drawn for the sample."""

from typing import Any, get_args

import numpy as np
import pytest
import torch

from catalog.png import encode_png
from catalog.sample import Sample
from detectors.base import Annotation, NetworkSpec, Refusal, Spec
from detectors.canny import CannySpec
from detectors.depth import DepthSpec
from detectors.errors import WeightsError
from detectors.inpaint import InpaintSpec, holes
from detectors.keypoints import Person, PoseSpec
from detectors.lsd import LsdSpec
from detectors.normal import NormalBaeSpec, NormalLabelsSpec
from detectors.scribble import ScribbleSpec
from detectors.segmentation import SegLabelsSpec, SegUperNetSpec
from training.errors import DataError
from training.measure.redetect import Found, Redetector, detecting, metric_of, pinned


def picture(seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), np.uint8))


def sample_of(image: np.ndarray, spec: Spec, seed: int = 0) -> Sample:
    made = spec.annotate(image, None, np.random.default_rng(seed))
    assert isinstance(made, Annotation)
    return Sample(
        key="a" * 32,
        image=encode_png(image),
        image_format="png",
        conditions={spec.condition: encode_png(made.map)},
        caption="",
        metadata={"conditions": {spec.condition: {**made.parameters, "sha256": "0"}}},
    )


class Brightness(NetworkSpec):
    """A network that finds the mean of the channels, times a factor."""

    checkpoint: str = "none"
    factor: float = 1.0

    def load(self, device: str, precision: str) -> Any:
        return lambda images: [
            image.mean(axis=2).astype(np.float32) * self.factor for image in images
        ]


class BrightDepth(DepthSpec):
    @property
    def network(self) -> Any:
        return Brightness()


class BrightEdges(ScribbleSpec):
    @property
    def network(self) -> Any:
        return Brightness(factor=1 / 255)


@pytest.mark.parametrize("seed", range(5))
def test_canny_is_found_again_with_the_thresholds_of_the_sample(seed):
    spec = CannySpec(low=(0, 200), gap=(0, 300))
    sample = sample_of(picture(seed), spec, seed)
    redetector = Redetector(spec)
    wanted = redetector.wanted(sample)
    assert redetector.scores([picture(seed)], [wanted]) == [1.0]
    fixed = pinned(spec, wanted.parameters)
    assert (fixed.low, fixed.gap) == (
        wanted.parameters["low"],
        wanted.parameters["high"] - wanted.parameters["low"],
    )


def test_what_an_inpainting_paints_into_the_holes_is_free():
    sample = sample_of(picture(), InpaintSpec(fill=(255, 0, 0)))
    redetector = Redetector(InpaintSpec(fill=(255, 0, 0)))
    wanted = redetector.wanted(sample)
    hole = holes(wanted.parameters, height=64, width=64)
    painted, spoiled = picture(), picture()
    painted[hole] = 7
    spoiled[~hole] //= 2
    scores = redetector.scores([picture(), painted, spoiled], [wanted] * 3)
    assert scores[:2] == [0, 0]
    assert scores[2] > 0.1


def test_other_pictures_score_lower_and_blank_ones_nothing():
    redetector = Redetector(CannySpec())
    wanted = redetector.wanted(sample_of(picture(0), CannySpec()))
    pictures = [picture(0), picture(1), np.zeros((64, 64, 3), np.uint8)]
    same, other, blank = redetector.scores(pictures, [wanted] * 3)
    assert same == 1.0 > other > blank == 0.0


def test_pictures_of_several_sizes_keep_their_order():
    spec, small, large = CannySpec(), picture(0), np.tile(picture(1), (2, 1, 1))
    redetector = Redetector(spec)
    wanted = [redetector.wanted(sample_of(one, spec)) for one in (large, small, large)]
    assert redetector.scores([large, small, large], wanted) == [1.0] * 3


def test_lines_and_depth_are_found_again():
    for spec in (LsdSpec(), LsdSpec(min_lines=500)):  # a refusal for few lines keeps its map
        redetector = Redetector(spec)
        wanted = redetector.wanted(sample_of(picture(), LsdSpec()))
        assert redetector.scores([picture()], [wanted]) == [1.0]
    depth = Redetector(BrightDepth())
    wanted = Found(map=picture().mean(axis=2).astype(np.uint8))
    same, flat = depth.scores([picture(), np.zeros((64, 64, 3), np.uint8)], [wanted] * 2)
    assert same < 0.01
    assert flat == 1.0  # refused: nothing was found
    assert not depth.metric.higher_is_better


def test_a_scribble_is_found_again_but_for_the_strokes_left_out():
    image = np.zeros((64, 64, 3), np.uint8)
    image[10:14, 4:60] = image[40:44, 4:60] = 255
    found = image.mean(axis=2).astype(np.float32) / 255
    for seed, mask_out in [(0, 0.0), (1, 0.0), (2, 0.0), (3, 0.5), (4, 0.5)]:
        spec = BrightEdges.model_validate({"synthesis": {"mask_out": mask_out}})
        made = spec.annotate(image, found, np.random.default_rng(seed))
        assert isinstance(made, Annotation)
        wanted = Found(map=made.map, parameters=made.parameters)
        (score,) = Redetector(spec).scores([image], [wanted])
        assert score == (1.0 if mask_out == 0 else pytest.approx(2 / 3, abs=0.05))


def test_people_are_compared_by_their_joints():
    nobody = Found(map=np.zeros((8, 8, 3), np.uint8), parameters={"people": []})
    joints = np.array([[5.0, 5.0, 1.0], [25.0, 5.0, 1.0]])
    one = Person(keypoints=joints, score=1.0).to_json()
    somebody = Found(map=nobody.map, parameters={"people": [one]})
    score = metric_of(PoseSpec(condition="pose")).score
    assert (score(somebody, somebody), score(somebody, nobody), score(nobody, nobody)) == (1, 0, 1)


def test_classes_are_compared_in_the_palette_of_the_sample():
    image, ids = picture(), np.ones((64, 64), np.int64)
    ids[:32] = 3
    made = SegLabelsSpec(palette="ade20k").annotate(image, ids, np.random.default_rng(0))
    assert not isinstance(made, Refusal)
    wanted = Found(map=made.map, parameters=made.parameters)
    assert metric_of(SegUperNetSpec()).score(wanted, wanted) == 1.0


def test_labels_have_stand_ins_of_their_own_convention():
    normals = detecting(NormalLabelsSpec(condition="n", convention="diode"))
    assert normals == NormalBaeSpec(condition="n", convention="diode")
    assert detecting(SegLabelsSpec(condition="s", palette="ade20k")) == SegUperNetSpec(
        condition="s"
    )
    with pytest.raises(DataError, match=r"classes of coco_stuff in a picture.*ADE20K"):
        Redetector(SegLabelsSpec(palette="coco_stuff"))


def test_every_detector_of_a_recipe_has_a_metric():
    from pipeline.recipe.recipe import AnySpec

    kinds = get_args(get_args(AnySpec)[0])
    assert len(kinds) >= 17
    for kind in kinds:
        metric = metric_of(kind.model_construct())
        assert metric.higher_is_better == (metric.worst == 0)


def test_a_training_in_a_lower_precision_does_not_round_the_measure(monkeypatch) -> None:
    seen = []

    def load(self: Brightness, device: str, precision: str) -> Any:
        def run(images: np.ndarray) -> list[np.ndarray]:
            seen.append((torch.eye(2) @ torch.eye(2)).dtype)
            return [image.mean(axis=2).astype(np.float32) for image in images]

        return run

    monkeypatch.setattr(Brightness, "load", load)
    redetector = Redetector(BrightDepth())
    with torch.autocast("cpu", torch.bfloat16):
        image = picture()
        wanted = Found(map=image[:, :, 0], parameters={})
        redetector.scores([image], [wanted])
    assert seen == [torch.float32]


def test_what_a_sample_lacks_is_named():
    redetector, sample = Redetector(CannySpec()), sample_of(picture(), CannySpec())
    del sample.metadata["conditions"]["canny"]["high"]
    with pytest.raises(DataError, match="'canny' lacks 'high'"):
        redetector.wanted(sample)
    with pytest.raises(DataError, match="has no condition 'lsd' with its parameters"):
        Redetector(LsdSpec()).wanted(sample)


def test_a_missing_network_is_named(monkeypatch, tmp_path):
    def absent(self: Any, device: str, precision: str) -> Any:
        raise WeightsError("no checkpoint midas_dpt_hybrid here")

    monkeypatch.setattr(Brightness, "load", absent)
    with pytest.raises(WeightsError, match="midas_dpt_hybrid"):
        Redetector(BrightDepth())
