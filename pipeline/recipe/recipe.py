"""What a dataset is made of: everything that changes its bytes, and nothing else."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from captioning.blip import BlipSpec
from captioning.endpoint import EndpointSpec
from captioning.sidecar import SidecarSpec
from captioning.vision_language import Florence2Spec, Qwen3VlSpec
from catalog import storage
from catalog.images import Crop
from catalog.sample import canonical_json, sha256_hex
from catalog.source import filters
from catalog.source.near_duplicates import MAX_DISTANCE
from catalog.source.ranking import Ranking
from detectors.base import NetworkSpec, Precision
from detectors.canny import CannySpec
from detectors.colour_palette import ColourPaletteSpec
from detectors.depth import DepthSpec
from detectors.depth_anything import DepthAnythingSpec
from detectors.dwpose import DwposeSpec
from detectors.grey import GreySpec
from detectors.hed import HedSpec
from detectors.inpaint import InpaintSpec
from detectors.lineart_anime import LineartAnimeSpec
from detectors.low_quality import LowQualitySpec
from detectors.lsd import LsdSpec
from detectors.mlsd import MlsdSpec
from detectors.movenet import MoveNetSpec
from detectors.normal import NormalBaeSpec, NormalLabelsSpec, NormalSpec
from detectors.normal_tipsv2 import NormalTipsv2Spec
from detectors.nsfw import NsfwNetwork
from detectors.openpifpaf import OpenPifPafSpec
from detectors.openpose import OpenposeLightSpec, OpenposeSpec
from detectors.pidinet import PidinetSpec
from detectors.scribble import ScribbleSpec
from detectors.segmentation import SegDeepLabSpec, SegEomtSpec, SegLabelsSpec, SegUperNetSpec
from detectors.teed import TeedSpec
from detectors.tile import TileSpec
from detectors.vitpose import VitposeSpec
from detectors.xdog import XdogSpec
from pipeline.errors import RecipeError
from pipeline.recipe.execution import Execution
from pipeline.recipe.presets import PRESETS
from pipeline.recipe.yaml_file import load_model
from training.settings.phases import Phase

Format: TypeAlias = Literal[2, 3]

FORMAT: Format = 3
"""Counts up when the code comes to write other bytes for the same recipe, whatever its detectors.

2 stored maps by libpng and zlib, 8 bits a channel; 3 has the same pixels, see `catalog.png`.
What only one detector makes otherwise counts up its own `detectors.base.Spec.version`.
"""

_PRESET = "preset="
_PIXELS = 2  # counts up with FORMAT where maps come to have other pixels


AnySpec: TypeAlias = Annotated[
    CannySpec
    | HedSpec
    | PidinetSpec
    | TeedSpec
    | ScribbleSpec
    | MlsdSpec
    | LsdSpec
    | DepthSpec
    | DepthAnythingSpec
    | NormalSpec
    | NormalLabelsSpec
    | NormalBaeSpec
    | NormalTipsv2Spec
    | SegLabelsSpec
    | SegUperNetSpec
    | SegEomtSpec
    | SegDeepLabSpec
    | LineartAnimeSpec
    | OpenposeSpec
    | OpenposeLightSpec
    | OpenPifPafSpec
    | MoveNetSpec
    | DwposeSpec
    | VitposeSpec
    | TileSpec
    | GreySpec
    | LowQualitySpec
    | ColourPaletteSpec
    | InpaintSpec
    | XdogSpec,
    Field(discriminator="detector"),
]
"""Every detector that a recipe can name."""

AnyCaptions: TypeAlias = Annotated[
    SidecarSpec | BlipSpec | EndpointSpec | Florence2Spec | Qwen3VlSpec,
    Field(discriminator="captioner"),
]
"""Every captioner that a recipe can name."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageOptions(_Strict):
    """How an image is brought to size and stored."""

    resolution: int = Field(512, ge=64, le=2048, multiple_of=64, description="short side; pixels")
    crop: Crop = Field("center", description="center: a square; none: sides to multiples of 64")
    format: Literal["jpg", "png"] = Field(
        "jpg", description="one for all samples, because Hugging Face datasets refuses a mixture"
    )
    jpeg_quality: int = Field(95, ge=1, le=100)
    reduced_decode: bool = Field(
        True, description="decode a JPEG of twice the size or more at 1/2, 1/4 or 1/8"
    )


class Rules(_Strict):
    """Limits that an image must keep; what breaks one is a row `rejected:<rule>`."""

    max_pixels: int = Field(100_000_000, ge=1, description="width x height as found; pixels")
    max_bytes: int = Field(256 << 20, ge=1, description="size of the encoded file; bytes")
    max_aspect: float = Field(
        16, ge=1, le=30, description="longer side over shorter; 30 x 2048 is what a JPEG can hold"
    )
    min_side: int = Field(1, ge=1, description="shorter side as found; pixels")
    filter: str | None = Field(
        None, description="what must hold of an image's columns: pwatermark < 0.8 and aesthetic > 5"
    )
    near_duplicates: int | None = Field(
        None,
        ge=0,
        le=MAX_DISTANCE,
        description="bits of 64 in which the perceptual hashes of near duplicates may differ, of "
        "which the best-ranked is kept; 6 is a good choice; None: not looked for",
    )
    damaged_jpeg: bool = Field(
        True, description="reject a JPEG whose decoder complains, although it gives a picture"
    )
    max_grey_tail: float = Field(
        0.05, ge=0, le=1, description="share of the height that is flat grey, from the bottom"
    )
    min_contrast: float = Field(
        4, ge=0, le=127.5, description="standard deviation of the brightness, 0..127.5"
    )
    min_chroma: float = Field(
        2, ge=0, le=180, description="colour, 0..180; greyscale is below 2; 0 keeps it"
    )
    min_sharpness: float = Field(
        60, ge=0, description="variance of the Laplacian in the sharp parts; 0 keeps blurred ones"
    )
    max_nsfw: float = Field(
        1, ge=0, le=1, description="open_nsfw's score; at 1 the network is not run"
    )
    min_coverage: float = Field(
        0, ge=0, le=1, description="share of a map's pixels that are not black; 0 keeps a blank one"
    )
    max_coverage: float = Field(
        1, ge=0, le=1, description="the same share at most; 1 keeps a full map"
    )

    @field_validator("filter")
    @classmethod
    def _filter_is_an_expression(cls, value: str | None) -> str | None:
        return value if value is None else filters.check(value)


class LabelFiles(_Strict):
    """How the ground truth beside an image is named; see `catalog.source.labels`."""

    suffix: str = Field(
        min_length=1,
        description="replaces the image's: .png, _normal.npy; labels may have a --labels",
    )


class TrainingDefaults(_Strict):
    """What the paper trained on this dataset; `train` reads it, and no byte depends on it."""

    base: str = Field(description="Stable Diffusion: a hub id or a folder")
    start: str | None = Field(None, description="recipe whose ControlNet training starts from")
    samples: int | None = Field(None, ge=1, description="pairs that the paper had")
    gpu_hours: int | None = Field(None, ge=1, description="that the paper trained")
    gpu: str | None = Field(None, description="on which the paper trained")
    steps: int | None = Field(None, ge=1, description="optimizer steps")
    batch_size: int | None = Field(None, ge=1, description="samples a process and micro-step")
    gradient_accumulation: int | None = Field(None, ge=1, description="micro-steps a step")
    learning_rate: float | None = Field(None, gt=0, description="AdamW's")
    prompt_dropout: float | None = Field(None, ge=0, le=1, description="share of empty prompts")
    phases: tuple[Phase, ...] | None = Field(None, description="what learns, and from when")


class Recipe(_Strict):
    """A dataset's recipe; its fingerprint names the bytes that it makes of given images."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    seed: int = Field(0, ge=0, description="of every random draw")
    samples_per_unit: int = Field(512, ge=1, le=10_000, description="images a unit and shard")
    batch_size: int = Field(
        8, ge=1, description="images that a network is given at once; can move its last bits"
    )
    precision: Precision = Field("fp32", description="of the networks")
    image: ImageOptions = ImageOptions()
    rules: Rules = Rules()
    detectors: tuple[AnySpec, ...] = Field(min_length=1)
    captions: AnyCaptions = SidecarSpec()
    ranking: Ranking = Field("resolution", description="what makes an image come first")
    max_images: int | None = Field(None, ge=1, description="annotate only the first so many")
    labels: LabelFiles | None = Field(None, description="ground truth, for detectors that draw it")
    training: TrainingDefaults | None = None
    format: Format = Field(
        FORMAT, description="of the stored bytes; a dataset goes on in the one it was begun in"
    )
    execution: Execution = Field(
        Execution(), exclude=True, description="resources; no byte depends on them"
    )

    @model_validator(mode="after")
    def _conditions_differ(self) -> "Recipe":
        names = [spec.condition for spec in self.detectors]
        if len(set(names)) < len(names):
            raise ValueError(f"conditions {names} are not distinct; give each detector its own")
        return self

    @model_validator(mode="after")
    def _labels_are_named(self) -> "Recipe":
        kinds = {spec.label for spec in self.detectors if spec.label is not None}
        if kinds and self.labels is None:
            raise ValueError("a detector draws labels: say how they are named, labels.suffix")
        if len(kinds) > 1:
            raise ValueError(f"detectors want labels of {len(kinds)} kinds, an image has one")
        return self

    @property
    def versions(self) -> dict[str, int]:
        """Versions of the detectors' code by condition, of those above the first."""
        return {spec.condition: spec.version for spec in self.detectors if spec.version > 1}

    @property
    def conditions(self) -> tuple[str, ...]:
        """Names of the condition maps, in the recipe's order."""
        return tuple(spec.condition for spec in self.detectors)

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved recipe as JSON types."""
        return self.model_dump(mode="json")

    @property
    def fingerprint(self) -> str:
        """Hash over all that changes bytes, the networks' checkpoints too; 32 hex characters."""
        others = ("training", "format")
        fields = {name: value for name, value in self.to_dict().items() if name not in others}
        fields["captions"] = self.captions.identity  # wherever a captioner's folder lies
        checkpoints = {spec.checkpoint: spec.identity for spec in self.networks}
        record = {**self._code, "recipe": fields, "checkpoints": checkpoints}
        return sha256_hex(canonical_json(record))[:32]

    @property
    def map_fingerprints(self) -> dict[str, str]:
        """By condition, a hash over what its map depends on, but not whether it is kept.

        32 hex characters each. Where two recipes have the same, either's map is the other's.
        """
        fields = self.to_dict()
        common = {name: fields[name] for name in ("seed", "batch_size", "precision", "image")}
        made = {}
        for spec, values in zip(self.detectors, fields["detectors"], strict=True):
            drawn = {name: value for name, value in values.items() if name not in spec.thresholds}
            record = {**common, "detector": drawn, "version": spec.version, "format": _PIXELS}
            if spec.label is not None:
                record["labels"] = fields["labels"]
            if spec.network is not None:
                record["checkpoint"] = [spec.network.checkpoint, spec.network.identity]
            made[spec.condition] = sha256_hex(canonical_json(record))[:32]
        return made

    @property
    def networks(self) -> tuple[NetworkSpec, ...]:
        """The networks that look at every image, each once."""
        wanted = [spec.network for spec in self.detectors if spec.network is not None]
        if self.rules.max_nsfw < 1:
            wanted.append(NsfwNetwork())
        return tuple(dict.fromkeys(wanted))

    def to_json(self) -> bytes:
        """Return what a dataset keeps as ``recipe.json``."""
        record = {"fingerprint": self.fingerprint, **self._code, "recipe": self.to_dict()}
        return json.dumps(record, indent=2, sort_keys=True).encode() + b"\n"

    @property
    def _code(self) -> dict[str, Any]:
        return {"format": self.format} | ({"versions": self.versions} if self.versions else {})


def load_recipe(source: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe by path or URI, or by the name of one that ships with the project.

    Args:
        source: which.
        overrides: ``dotted.path=value``, or ``preset=NAME``, see `pipeline.recipe.presets`.

    Raises:
        RecipeError: there is none, or it does not validate.
    """
    given = list(overrides)
    presets = [one.partition("=")[2] for one in given if one.startswith(_PRESET)]
    others = [one for one in given if not one.startswith(_PRESET)]
    recipe = _load(source, others)
    meant = [change for name in presets for change in _preset(name)(recipe)]
    return _load(source, [*meant, *others]) if meant else recipe


def _preset(name: str) -> Callable[[Recipe], list[str]]:
    if name not in PRESETS:
        raise RecipeError(f"--set preset={name}: unknown; expected {', '.join(PRESETS)}")
    return PRESETS[name]


def _load(source: str, overrides: Iterable[str]) -> Recipe:
    uri = source if _is_file(source) else str(_shipped(source))
    text = storage.read_bytes(uri).decode("utf-8", errors="replace")
    return load_model(Recipe, text, name=source, overrides=overrides)


def _is_file(source: str) -> bool:
    path = storage.local_path(source)  # a folder may well have a recipe's name: --out canny
    return storage.exists(source) if path is None else path.is_file()


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that come with the project, by name."""
    here = Path(__file__).parents[1]
    folders = (here / "recipes", here.parent / "recipes")  # in a wheel, in a checkout
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def _shipped(name: str) -> Path:
    recipes = shipped_recipes()
    if name not in recipes:
        known = ", ".join(recipes) or "none found"
        raise RecipeError(f"no recipe at {name!r}; give a YAML file, or a shipped one: {known}")
    return recipes[name]
