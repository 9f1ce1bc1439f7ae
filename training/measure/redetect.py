"""Finding a condition again in a picture, as the dataset's detector found it in the photograph.

What was drawn at random for a sample (Canny's thresholds, a scribble's brush) is taken from its
metadata, so that picture and condition differ by what they show alone. Labels have no detector; a
network that speaks their palette or convention stands in, so that even the photographs score below
a perfect picture: compare with their score, never with 1.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from catalog.png import decode_png
from catalog.sample import Sample
from detectors.base import Image, Map, Result, Spec
from detectors.canny import CannySpec
from detectors.colour_palette import ColourPaletteSpec
from detectors.depth import NearnessSpec
from detectors.graph import Findings, Graph, annotate, out_of_memory
from detectors.grey import GreySpec
from detectors.hed import HedSpec
from detectors.inpaint import InpaintSpec, holes
from detectors.keypoints import Person, PoseSpec
from detectors.lineart_anime import LineartAnimeSpec
from detectors.lines import LinesSpec
from detectors.low_quality import LowQualitySpec
from detectors.normal import NetworkNormalsSpec, NormalBaeSpec, NormalLabelsSpec, NormalSpec
from detectors.palettes import palette
from detectors.pidinet import PidinetSpec
from detectors.scribble import ScribbleSpec, Synthesis
from detectors.segmentation import SegDeepLabSpec, SegEomtSpec, SegLabelsSpec, SegUperNetSpec
from detectors.teed import TeedSpec
from detectors.tile import TileSpec
from detectors.xdog import XdogSpec
from training.errors import DataError
from training.measure import map_likeness

_log = logging.getLogger(__name__)

CANNY_TOLERANCE = 1
"""Pixels: the tolerance of the project's own target."""

LINE_TOLERANCE = 2
"""Pixels: the ends of lines are rounded, and a stroke's rim moves with the blur before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A condition map with what its detector noted.

    Attributes:
        map: uint8 (h, w) or (h, w, 3), or uint16 (h, w).
        parameters: the sample's metadata of this condition; JSON types.
    """

    map: Map
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How one kind of condition is compared.

    Attributes:
        name: with the unit, for tables and plots.
        score: of the wanted condition and of the one found in a picture.
        worst: what a picture gets in which the detector finds no condition at all.
        higher_is_better: whether obedience raises the score.
    """

    name: str
    score: Callable[[Found, Found], float]
    worst: float = 0.0
    higher_is_better: bool = True


def _lines(wanted: Found, found: Found, *, tolerance: int) -> float:
    return map_likeness.line_f1(wanted.map, found.map, tolerance)


def _soft_edges(wanted: Found, found: Found) -> float:
    return map_likeness.similarity(wanted.map, found.map)


def _classes(wanted: Found, found: Found) -> float:
    colours = palette(wanted.parameters["palette"])
    return map_likeness.mean_iou(wanted.map, found.map, colours)


def _joints(wanted: Found, found: Found) -> float:
    one, other = (
        [Person.from_json(person) for person in side.parameters["people"]]
        for side in (wanted, found)
    )
    return map_likeness.keypoints_found(one, other)


def _around_holes(wanted: Found, found: Found) -> float:
    height, width = wanted.map.shape[:2]
    kept = ~holes(wanted.parameters, height=height, width=width)
    return map_likeness.picture_rmse(wanted.map[kept], found.map[kept])


_LINES = partial(_lines, tolerance=LINE_TOLERANCE)

METRICS: Mapping[type[Spec], Metric] = {
    CannySpec: Metric(
        name=f"Canny F1 ({CANNY_TOLERANCE} px)", score=partial(_lines, tolerance=CANNY_TOLERANCE)
    ),
    HedSpec: Metric(name="HED SSIM", score=_soft_edges),
    PidinetSpec: Metric(name="PiDiNet SSIM", score=_soft_edges),
    TeedSpec: Metric(name="TEED SSIM", score=_soft_edges),
    ScribbleSpec: Metric(name=f"scribble F1 ({LINE_TOLERANCE} px)", score=_LINES),
    LinesSpec: Metric(name=f"line F1 ({LINE_TOLERANCE} px)", score=_LINES),
    LineartAnimeSpec: Metric(name=f"line art F1 ({LINE_TOLERANCE} px)", score=_LINES),
    NearnessSpec: Metric(
        name="depth RMSE (0..1)",
        score=lambda one, two: map_likeness.depth_rmse(one.map, two.map),
        worst=1.0,
        higher_is_better=False,
    ),
    **dict.fromkeys(
        (NormalSpec, NormalLabelsSpec, NetworkNormalsSpec),
        Metric(
            name="normal angle (degrees)",
            score=lambda one, two: map_likeness.normal_angle(one.map, two.map),
            worst=90.0,  # the mean of directions that have nothing to do with each other
            higher_is_better=False,
        ),
    ),
    **dict.fromkeys(
        (SegLabelsSpec, SegUperNetSpec, SegEomtSpec, SegDeepLabSpec),
        Metric(name="segmentation mIoU", score=_classes),
    ),
    PoseSpec: Metric(name="pose PCK@0.1", score=_joints),
    XdogSpec: Metric(name=f"line art F1 ({LINE_TOLERANCE} px)", score=_LINES),
    **dict.fromkeys(
        (TileSpec, GreySpec, LowQualitySpec, ColourPaletteSpec),
        Metric(
            name="picture RMSE (0..1)",
            score=lambda one, two: map_likeness.picture_rmse(one.map, two.map),
            worst=1.0,
            higher_is_better=False,
        ),
    ),
    InpaintSpec: Metric(
        name="RMSE around the holes (0..1)", score=_around_holes, worst=1.0, higher_is_better=False
    ),
}
"""The metric of each kind of condition; that of a class holds for its subclasses."""


def metric_of(spec: Spec) -> Metric:
    """Return the metric of a condition."""
    return next(METRICS[kind] for kind in type(spec).__mro__ if kind in METRICS)


class Redetector:
    """Scores pictures by the condition that they were to follow."""

    def __init__(self, spec: Spec, *, device: str = "cpu") -> None:
        """Load the detector of `spec`.

        Args:
            spec: the detector that made the condition, out of the dataset's recipe.
            device: of its network, for example ``cpu`` or ``cuda:0``.

        Raises:
            WeightsError: the network's checkpoint is not here and cannot be had.
            DataError: nothing detects this condition in a picture.
        """
        self.metric = metric_of(spec)
        self._spec = detecting(spec)
        self._graph = Graph([self._spec], device=device)
        self._device = torch.device(device).type

    def wanted(self, sample: Sample) -> Found:
        """Return the condition of a sample with its stored parameters.

        Raises:
            DataError: the sample lacks the condition, or what the detector noted.
        """
        name = self._spec.condition
        noted = sample.metadata.get("conditions", {}).get(name)
        if noted is None or name not in sample.conditions:
            raise DataError(
                f"sample {sample.key} has no condition {name!r} with its parameters: build the "
                "dataset with this project's build command"
            )
        pinned(self._spec, noted)  # a sample that lacks a parameter is found out before training
        return Found(map=decode_png(sample.conditions[name]), parameters=noted)

    def scores(
        self, pictures: Sequence[Image], wanted: Sequence[Found], *, forgiving: bool = False
    ) -> list[float]:
        """Return each picture's score; the condition has its height and width.

        Args:
            pictures: of any sizes.
            wanted: a condition a picture.
            forgiving: give a picture on which the detector fails the worst score, and say so,
                unless it fails on all of them or for lack of memory.

        Raises:
            Exception: what the detector raises.
        """
        scores, failed = [], 0
        with torch.autocast(self._device, enabled=False):  # the measure is no part of a training
            findings = self._graph.run(pictures)
        for picture, target, found in zip(pictures, wanted, findings, strict=True):
            try:
                scores.append(self._score(target, self._found(picture, target, found)))
            except Exception as error:  # a picture is no dataset's row: one must not end the rest
                failed += 1
                if not forgiving or failed == len(pictures) or out_of_memory(error):
                    raise
                _log.warning("the detector failed on a picture, which scores worst: %s", error)
                scores.append(self.metric.worst)
        return scores

    def _found(self, picture: Image, wanted: Found, found: Findings) -> Result:
        spec = pinned(self._spec, wanted.parameters)
        return annotate(spec, picture, found, np.random.Generator(np.random.Philox(key=0)))

    def _score(self, wanted: Found, result: Result) -> float:
        if result.map is None:  # refused, and with nothing to show: a flat depth
            return self.metric.worst
        return self.metric.score(wanted, Found(map=result.map, parameters=result.parameters))


def detecting(spec: Spec) -> Spec:
    """Return what finds a condition in a picture: the spec itself, or a stand-in for labels.

    Raises:
        DataError: nothing finds it.
    """
    if isinstance(spec, NormalLabelsSpec):
        return NormalBaeSpec(condition=spec.condition, convention=spec.convention)
    if isinstance(spec, SegLabelsSpec):
        if spec.palette != "ade20k":
            raise DataError(
                f"no network here finds the classes of {spec.palette} in a picture: adherence can "
                "be measured for segmentations in ADE20K's classes"
            )
        return SegUperNetSpec(condition=spec.condition)
    return spec


def pinned(spec: Spec, noted: Mapping[str, Any]) -> Spec:
    """Fix what `spec` draws to what was drawn for a sample.

    Of a scribble, no stroke is left out: which ones the sample lacks cannot be told in a picture.

    Args:
        spec: a detector.
        noted: the sample's metadata of this condition.

    Raises:
        DataError: a drawn value was not noted.
    """
    try:
        if isinstance(spec, CannySpec):
            drawn = {"low": noted["low"], "gap": noted["high"] - noted["low"]}
            return spec.model_copy(update=drawn)
        if isinstance(spec, TileSpec | LowQualitySpec | XdogSpec):
            drawn = {name: noted[name] for name in ("factor", "quality", "noise", "sigma")
                     if name in type(spec).model_fields}  # fmt: skip
            return spec.model_copy(update=drawn)
        if isinstance(spec, InpaintSpec):  # the picture is looked at whole
            _ = noted["strokes"], noted["boxes"]  # which the metric asks for
            return spec.model_copy(update={"strokes": 0, "boxes": 0})
        if isinstance(spec, ScribbleSpec) and spec.mode == "random":
            return spec.model_copy(update={"synthesis": _as_drawn(spec.synthesis, noted)})
    except KeyError as error:
        raise DataError(
            f"a sample's metadata of {spec.condition!r} lacks {error}, which its detector draws at "
            "random: build the dataset anew"
        ) from None
    return spec


def _as_drawn(ranges: Synthesis, noted: Mapping[str, Any]) -> Synthesis:
    fixed: dict[str, Any] = {"nms": float(noted["nms"]), "mask_out": 0.0}
    fixed |= {name: noted[name] for name in ("threshold", "sigma")}
    if ranges.morphology:
        fixed |= {"morphology": (noted["morphology"],), "radius": noted["radius"]}
    return ranges.model_copy(update=fixed)
