"""Normals: coarse ones from MiDaS, measured ones from labels (paper, section 3.5), NormalBae's.

A normal map's colours mean nothing without its axes. Here a normal is a unit vector in the camera's
frame that points from the surface towards the camera: (left, up, back), `back` towards the viewer.
A convention says which of them a map's red, green and blue show, from -1 at 0 to +1 at 255:

========  ====================  =============================================================
midas     back, up, left        ControlNet 1.0's, controlnet_aux's MidasDetector's: channels
                                reversed before they reach the ControlNet
diode     right, up, back       the components in the order of DIODE's files
bae       left, up, back        ControlNet 1.1's, ScanNet's: "blue is front, red is left, green
                                is top"
========  ====================  =============================================================

Whoever flips an image must also negate the channel of left or right: the parameters name it.
"""

from typing import Any, ClassVar, Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from pydantic import Field

from detectors.base import (
    Annotation,
    ConditionName,
    Image,
    Label,
    Network,
    NetworkSpec,
    Precision,
    Refusal,
    Result,
    Spec,
)
from detectors.depth import MidasCheckpoint, MidasNetwork, nearness
from detectors.errors import DetectorError

Convention = Literal["midas", "diode", "bae"]
Axes = Literal["right_up_back", "left_up_back", "right_down_forward"]
BaeCheckpoint = Literal["normal_bae"]

CHANNELS: dict[Convention, tuple[str, str, str]] = {
    "midas": ("back", "up", "left"),
    "diode": ("right", "up", "back"),
    "bae": ("left", "up", "back"),
}
"""What red, green and blue show."""

_DIRECTIONS: dict[str, tuple[int, int]] = {  # component of (left, up, back), and its sign
    "left": (0, 1),
    "right": (0, -1),
    "up": (1, 1),
    "down": (1, -1),
    "back": (2, 1),
    "forward": (2, -1),
}
_Z = np.float32(2 * np.pi)  # upstream's weight of `back` against the depth's slope
_TOLERANCE = 0.01  # of a unit vector's length
_NEUTRAL = 127  # what a vector of no length has in each channel
_COLOURS = "which axes red, green and blue show; see detectors/normal.py"

Normals = Float32[np.ndarray, "h w 3"]


class NormalSpec(Spec):
    """Normals from the slope of MiDaS's inverse depth (paper, "Normal Maps (extended)").

    ControlNet 1.1's authors call this physically wrong, which it is: the slope of an inverse depth
    is no slope of the surface. It is what the paper's normal model was trained on.
    """

    detector: Literal["normal"] = "normal"
    condition: ConditionName = "normal"
    checkpoint: MidasCheckpoint = "midas_dpt_hybrid"
    background: float = Field(
        0.4,
        ge=0,
        le=1,
        description="nearness 0..1 below which a pixel faces the viewer; ControlNet's demo has "
        "0.4, its API 0.1",
    )
    convention: Convention = Field("midas", description=_COLOURS)

    @property
    def network(self) -> MidasNetwork:
        """MiDaS; shared with a `detectors.depth.DepthSpec`."""
        return MidasNetwork(checkpoint=self.checkpoint)

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return a map (h, w, 3); refuses a flat depth, rule ``flat_depth``."""
        near = nearness(found)
        if isinstance(near, Refusal):
            return near
        return _annotation(from_depth(found, near < self.background), self.convention)


class NormalLabelsSpec(Spec):
    """Normals as they were measured, for example DIODE's (paper, "Normal Maps")."""

    label: ClassVar[Label | None] = "normals"

    detector: Literal["normal_labels"] = "normal_labels"
    condition: ConditionName = "normal"
    axes: Axes = Field(
        "right_up_back",
        description="of the label's three components. DIODE does not say; its own is taken for the "
        "default, and convention diode then leaves its components as they are",
    )
    convention: Convention = Field("diode", description=_COLOURS)
    max_unmeasured: float = Field(
        0.9, ge=0, le=1, description="share of pixels without a normal that refuses the image"
    )

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return a map (h, w, 3); pixels without a normal get (127, 127, 127).

        Refuses an image with too few normals, rule ``unmeasured``.

        Raises:
            DetectorError: the label has another shape, or vectors of another length than 1.
        """
        measured = _measured(found, image)
        share = round(1 - float(measured.mean()), 4)
        if share > self.max_unmeasured:
            return Refusal(rule="unmeasured", value=share, threshold=self.max_unmeasured)
        result = _annotation(_in_own_frame(found, self.axes), self.convention, unmeasured=share)
        result.map[~measured] = _NEUTRAL
        return result


class BaeNetwork(NetworkSpec):
    """NormalBae."""

    checkpoint: BaeCheckpoint = "normal_bae"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are normals (left, up, back), float32 (h, w, 3)."""
        from detectors.networks.normal_bae import NormalBae

        return NormalBae(self.checkpoint, device, precision)


class NetworkNormalsSpec(Spec):
    """Normals as a network finds them, (left, up, back), in ControlNet 1.1's colours by default."""

    convention: Convention = Field("bae", description=_COLOURS)

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return a map (h, w, 3)."""
        return _annotation(found, self.convention)


class NormalBaeSpec(NetworkNormalsSpec):
    """Normals by NormalBae: not the paper's, but what ControlNet 1.1 replaced it with."""

    detector: Literal["normal_bae"] = "normal_bae"
    condition: ConditionName = "normal_bae"
    checkpoint: BaeCheckpoint = "normal_bae"

    @property
    def network(self) -> BaeNetwork:
        """NormalBae."""
        return BaeNetwork(checkpoint=self.checkpoint)


def from_depth(depth: Float32[np.ndarray, "h w"], background: Bool[np.ndarray, "h w"]) -> Normals:
    """Return normals (left, up, back) by the slope of a raw inverse depth.

    What grows nearer to the right faces left, what grows nearer downwards faces up. The depth's
    unit matters: unstretched it is MiDaS's, in the hundreds.
    """
    left = cv2.Sobel(depth, cv2.CV_32F, 1, 0, ksize=3)
    up = cv2.Sobel(depth, cv2.CV_32F, 0, 1, ksize=3)
    left[background] = 0
    up[background] = 0
    normals = np.stack([left, up, np.full_like(left, _Z)], axis=2)
    unit: np.ndarray = normals / np.sqrt((normals**2).sum(axis=2, keepdims=True))
    return unit


def to_colours(normals: Normals, convention: Convention) -> UInt8[np.ndarray, "h w 3"]:
    """Return normals (left, up, back) as a convention's red, green and blue, rounded down."""
    picked = [_DIRECTIONS[direction] for direction in CHANNELS[convention]]
    rgb = np.stack([normals[:, :, at] * np.float32(sign) for at, sign in picked], axis=2)
    scaled = rgb * np.float32(127.5) + np.float32(127.5)
    return scaled.clip(0, 255).astype(np.uint8)


def _annotation(normals: Normals, convention: Convention, **parameters: Any) -> Annotation:
    return Annotation(
        map=to_colours(normals, convention),
        parameters={"convention": convention, "channels": list(CHANNELS[convention]), **parameters},
    )


def _in_own_frame(normals: np.ndarray, axes: Axes) -> Normals:
    own = np.empty(normals.shape, np.float32)
    for at, direction in enumerate(axes.split("_")):
        to, sign = _DIRECTIONS[direction]
        own[:, :, to] = sign * np.nan_to_num(normals[:, :, at])
    return own


def _measured(found: Any, image: Image) -> Bool[np.ndarray, "h w"]:
    """Return where a label has normals: neither NaN nor, as in DIODE's files, without length."""
    if not isinstance(found, np.ndarray) or found.shape != image.shape:
        shape = getattr(found, "shape", found)
        raise DetectorError(f"normals have shape {shape}, expected the image's, {image.shape}")
    length = np.nan_to_num(np.sqrt((found.astype(np.float32) ** 2).sum(axis=2)))
    measured: np.ndarray = length > 0
    typical = float(np.median(length[measured])) if measured.any() else 1.0
    if abs(typical - 1) > _TOLERANCE:
        raise DetectorError(
            f"normals have lengths around {typical:.3g}, expected 1: components from -1 to 1, "
            "not colours"
        )
    return measured
