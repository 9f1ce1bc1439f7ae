"""What a detector is: a frozen spec that a recipe holds, a network that specs share, a finish.

A condition is made in two steps. A network, if the spec names one, turns images into findings: an
edge map, raw depth, people. It runs in batches on a device and is shared by all specs that name an
equal one. `Spec.annotate` turns one image and its finding into the map or a refusal: pure, on the
CPU, safe to call from many threads.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from jaxtyping import UInt8, UInt16
from pydantic import BaseModel, ConfigDict, Field

from detectors import weights

Image: TypeAlias = UInt8[np.ndarray, "h w 3"]
Batch: TypeAlias = UInt8[np.ndarray, "b h w 3"]
Map: TypeAlias = UInt8[np.ndarray, "h w *c"] | UInt16[np.ndarray, "h w"]
Precision: TypeAlias = Literal["fp32", "tf32", "fp16", "bf16"]
"""Of weights, activations and products. tf32: fp32, with products of 10 bits where a GPU has them;
on a CPU it is fp32."""

ConditionName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=32)]

Label: TypeAlias = Literal["classes", "normals"]
"""Ground truth at the image's height and width: class ids, int32 (h, w); unit normals, float32
(h, w, 3), NaN where none was measured. Both are cropped and resized with the nearest neighbour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """A condition map and what made it.

    Attributes:
        map: uint8, (h, w) or (h, w, 3), 0..255, or uint16 (h, w), 0..65535; of the image's own
            height and width.
        parameters: every value that was drawn or derived for this image; JSON types.
    """

    map: Map
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A detector's finding that an image gives no condition.

    Attributes:
        rule: short stable reason, for example ``keypoints``.
        value: the measured number.
        threshold: the number that it was judged by.
        parameters: what was found all the same, so that another threshold can be asked later; JSON
            types.
        map: what another threshold would let through, where there is one.
    """

    rule: str
    value: float
    threshold: float
    parameters: dict[str, Any] = field(default_factory=dict)
    map: Map | None = field(default=None, compare=False)


Result: TypeAlias = Annotation | Refusal


class Network(Protocol):
    """Loaded and ready on a device."""

    def __call__(self, images: Batch) -> Sequence[Any]:
        """Return a finding for each image of one size, in order; its type is the network's."""
        ...


class NetworkSpec(BaseModel):
    """What identifies a network: frozen and hashable, so that equal ones are loaded once.

    A subclass lists its parameters as fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checkpoint: str

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Names of all files that `load` needs."""
        return (self.checkpoint,)

    @property
    def identity(self) -> str:
        """What stands for the weights in a recipe's fingerprint; needs neither file nor network."""
        return "+".join(weights.identity(name) for name in self.checkpoints)

    def load(self, device: str, precision: Precision) -> Network:
        """Load the network onto `device`, for example ``cpu`` or ``cuda:0``.

        Raises:
            WeightsError: the checkpoint is not here and cannot be had.
        """
        raise NotImplementedError


class Spec(BaseModel):
    """Parameters of a condition: frozen, picklable, part of a recipe's fingerprint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: ClassVar[Label | None] = None
    """What must lie beside the image; `annotate` is given it in place of a network's finding."""

    thresholds: ClassVar[frozenset[str]] = frozenset()
    """Fields that change no map, only whether it is refused."""

    condition: ConditionName

    @property
    def version(self) -> int:
        """Counts up when the code comes to make other maps for the same parameters."""
        return 1

    @property
    def network(self) -> NetworkSpec | None:
        """The network whose finding `annotate` needs, or None."""
        return None

    def annotate(self, image: Image, found: Any, generator: np.random.Generator) -> Result:
        """Make the map of one image.

        Args:
            image: uint8 RGB (h, w, 3).
            found: the network's finding for this image, or the label; None for a spec with neither.
            generator: the only source of randomness.
        """
        raise NotImplementedError

    def refuse(self, parameters: Mapping[str, Any]) -> Refusal | None:
        """Refuse an image by what `annotate` found in it; None: the map is good.

        Asked of parameters alone, those of an earlier annotation too, so that a changed threshold
        costs no network. A spec with such thresholds names them in `thresholds`.
        """
        return None


def keep_or_refuse(spec: Spec, made: Annotation) -> Result:
    """Return an annotation, or its refusal by the spec's own thresholds, with the map kept."""
    refusal = spec.refuse(made.parameters)
    if refusal is None:
        return made
    return replace(refusal, parameters=made.parameters, map=made.map)


def generator_for(sha256: str, condition: str, seed: int) -> np.random.Generator:
    """Return the generator of one image and condition.

    Keyed by content, so a draw depends neither on the order of images nor on worker, batch or
    resume.

    Args:
        sha256: hex digest of the source image's bytes.
        condition: name of the condition.
        seed: the recipe's seed.
    """
    key = hashlib.sha256(f"{sha256}\n{condition}\n{seed}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
