"""Segmentation by labels and by networks (paper, section 3.5, "Semantic Segmentation")."""

from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Integer
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
from detectors.errors import DetectorError
from detectors.palettes import Palette, PaletteName, palette

UperNetCheckpoint = Literal["upernet_convnext_small"]
EomtCheckpoint = Literal["eomt_ade20k_large"]
DeepLabCheckpoint = Literal["deeplab_ade20k"]

_UNLABELLED = "share of pixels without a class that refuses the image; 1 keeps every image"


class SegLabelsSpec(Spec):
    """A dataset's own classes in a palette's colours, as the paper made both of its datasets.

    Ids are the files' own. ADE20K's annotations (SceneParse150): 0 is no class, 1..150 the classes.
    COCO-Stuff 164k's pixel maps: 0..181 the classes, their number in the list less one; 255 is no
    class.
    """

    label: ClassVar[Label | None] = "classes"

    detector: Literal["seg_labels"] = "seg_labels"
    condition: ConditionName = "seg"
    palette: PaletteName = Field(description="of the dataset that the labels are from")
    max_unlabelled: float = Field(1, ge=0, le=1, description=_UNLABELLED)

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return a map (h, w, 3), with each class's share of the pixels by its id.

        Refuses an image with too many pixels without a class, rule ``unlabelled``.

        Raises:
            DetectorError: the label has another shape, or an id is not the palette's.
        """
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "iu":
            kind = getattr(found, "dtype", type(found).__name__)
            raise DetectorError(f"label is {kind}, expected class ids, integers")
        if found.shape != image.shape[:2]:
            raise DetectorError(f"label has shape {found.shape}, expected {image.shape[:2]}")
        return _painted(found.astype(np.int64), palette(self.palette), self.max_unlabelled)


class UperNetwork(NetworkSpec):
    """UperNet on ConvNeXt, trained on ADE20K."""

    checkpoint: UperNetCheckpoint = "upernet_convnext_small"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are ADE20K's ids, uint8 (h, w), 1..150."""
        from detectors.networks.upernet import UperNet

        return UperNet(self.checkpoint, device, precision)


class SegUperNetSpec(Spec):
    """ADE20K's 150 classes by UperNet (Xiao et al., 2018), for images without labels."""

    detector: Literal["seg_upernet"] = "seg_upernet"
    condition: ConditionName = "seg"
    checkpoint: UperNetCheckpoint = "upernet_convnext_small"

    @property
    def network(self) -> UperNetwork:
        """UperNet."""
        return UperNetwork(checkpoint=self.checkpoint)

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return a map (h, w, 3), with each class's share of the pixels by its id, 1..150."""
        return _painted(found, palette("ade20k"))


class EomtNetwork(NetworkSpec):
    """EoMT on DINOv2, trained on ADE20K."""

    checkpoint: EomtCheckpoint = "eomt_ade20k_large"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network; its findings are ADE20K's ids, uint8 (h, w), 1..150."""
        from detectors.networks.eomt import Eomt

        return Eomt(self.checkpoint, device, precision)


class SegEomtSpec(Spec):
    """ADE20K's 150 classes by EoMT (Kerssies et al., 2025), for images without labels."""

    detector: Literal["seg_eomt"] = "seg_eomt"
    condition: ConditionName = "seg"
    checkpoint: EomtCheckpoint = "eomt_ade20k_large"

    @property
    def network(self) -> EomtNetwork:
        """EoMT."""
        return EomtNetwork(checkpoint=self.checkpoint)

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return a map (h, w, 3), with each class's share of the pixels by its id, 1..150."""
        return _painted(found, palette("ade20k"))


class DeepLabNetwork(NetworkSpec):
    """DeepLab v3 on MobileNet v2, quantised to 8 bits."""

    checkpoint: DeepLabCheckpoint = "deeplab_ade20k"

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network, always on the CPU; its findings are ids, uint8 (h, w), 0..31."""
        from detectors.networks.deeplab import DeepLab

        return DeepLab(self.checkpoint)


class SegDeepLabSpec(Spec):
    """ADE20K's 31 most frequent classes by a small DeepLab; the rest is black."""

    detector: Literal["seg_deeplab"] = "seg_deeplab"
    condition: ConditionName = "seg"
    checkpoint: DeepLabCheckpoint = "deeplab_ade20k"
    max_unlabelled: float = Field(1, ge=0, le=1, description=_UNLABELLED)

    @property
    def network(self) -> DeepLabNetwork:
        """DeepLab."""
        return DeepLabNetwork(checkpoint=self.checkpoint)

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Return a map (h, w, 3), with each class's share of the pixels by its id, 1..31.

        Refuses an image with too many pixels of other classes, rule ``unlabelled``.
        """
        return _painted(found, palette("ade20k"), self.max_unlabelled)


def _painted(
    ids: Integer[np.ndarray, "h w"], colours: Palette, max_unlabelled: float = 1
) -> Result:
    painted = colours.painted(ids)
    counts = np.bincount(ids.ravel(), minlength=256) / ids.size
    shares = {str(id_): round(float(counts[id_]), 6) for id_ in np.flatnonzero(counts).tolist()}
    parameters = {"palette": colours.name, "classes": shares}
    unlabelled = shares.get(str(colours.unlabelled), 0.0)
    if unlabelled > max_unlabelled:
        return Refusal(
            rule="unlabelled", value=unlabelled, threshold=max_unlabelled, parameters=parameters
        )
    return Annotation(map=painted, parameters=parameters)
