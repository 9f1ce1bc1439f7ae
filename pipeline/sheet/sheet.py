"""Conditions of a few images, to look at: maps as files, and a sheet with all of them."""

import difflib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from pydantic import TypeAdapter, ValidationError

from catalog import storage
from catalog.errors import CatalogError
from catalog.images import Image, decode_image, fit, resize
from catalog.png import encode_png
from catalog.publish.grid import draw_grid
from catalog.sample import sha256_hex
from catalog.source.listing import list_parts
from detectors.base import Annotation, Refusal, Spec, generator_for
from detectors.graph import Findings, Graph, annotate
from pipeline.errors import UsageError
from pipeline.recipe.recipe import AnySpec

_SHEET_SIDE = 320  # pixels of the longer side of a picture on the sheet
_NOTE_CHARACTERS = 160
_LISTED = 8  # longer lists of found things, such as lines, are told by their number


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotated:
    """An image and what became of each condition asked for.

    Attributes:
        name: of the file, without suffix.
        image: uint8 RGB (h, w, 3), as it was annotated.
        maps: by condition.
        notes: by condition, what was drawn or why there is no map.
    """

    name: str
    image: Image
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def specs_of(conditions: Sequence[str], overrides: Sequence[str] = ()) -> list[Spec]:
    """Return the detectors of these names with their defaults, each as a condition of its name.

    Args:
        conditions: names of detectors: ``canny``, ``hed``, ...
        overrides: ``detector.field=value``.

    Raises:
        UsageError: an unknown name, field or value.
    """
    known = known_detectors()
    for name in conditions:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            guess = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise UsageError(f"no detector {name!r} looks at images; {guess}")
    fields: dict[str, dict[str, Any]] = {
        name: {"detector": name, "condition": name} for name in conditions
    }
    for override in overrides:
        path, _, value = override.partition("=")
        name, _, key = path.partition(".")
        if name not in fields or not key:
            raise UsageError(f"--set {override}: write detector.field=value, for a detector asked")
        fields[name][key] = value
    try:
        return [TypeAdapter(AnySpec).validate_python(one) for one in fields.values()]
    except ValidationError as error:
        issues = ((".".join(map(str, issue["loc"])), issue["msg"]) for issue in error.errors())
        raise UsageError("; ".join(f"--set {at}: {what}" for at, what in issues)) from error


def known_detectors() -> list[str]:
    """Return the names of all detectors that look at images, not at ground truth beside them."""
    union = get_args(get_args(AnySpec)[0])
    return [spec.model_fields["detector"].default for spec in union if spec.label is None]


def annotate_images(
    images: Sequence[str],
    specs: Sequence[Spec],
    out: Path,
    *,
    resolution: int,
    seed: int,
    graph: Graph,
) -> Iterator[Annotated]:
    """Annotate images at their own shape and write ``out/<name>.<condition>.png``.

    Beside the maps goes ``out/<name>.json`` with every drawn value. Images that cannot be read are
    told in place of their maps.

    Raises:
        UsageError: there are no images.
    """
    parts = [part for part in list_parts(images).parts if part.kind == "file"]
    if not parts:
        raise UsageError(f"no image files in {', '.join(images)}")
    out.mkdir(parents=True, exist_ok=True)
    for part, name in zip(parts, _names([part.uri for part in parts]), strict=True):
        data = storage.read_bytes(part.uri)
        try:
            pixels = fit(decode_image(data), resolution=resolution, crop="none")
        except CatalogError as error:
            blank = np.full((resolution, resolution, 3), 255, np.uint8)
            yield Annotated(name=name, image=blank, notes={"image": str(error)})
            continue
        (findings,) = graph.run([pixels])
        made, record = _annotate(name, pixels, specs, findings, sha256_hex(data), seed)
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        for condition, drawn in made.maps.items():
            (out / f"{name}.{condition}.png").write_bytes(encode_png(drawn))
        (out / f"{name}.json").write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        yield made


def write_sheet(path: Path, rows: Sequence[Annotated], specs: Sequence[Spec]) -> Path:
    """Write `draw_sheet` as PNG; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(draw_sheet(rows, specs)))
    return path


def draw_sheet(rows: Sequence[Annotated], specs: Sequence[Spec]) -> Image:
    """Draw a row an image: the image and each of its maps, small, with what was drawn under it."""
    conditions = [spec.condition for spec in specs]
    cells = [
        [_small(row.image), *(_small(_visible(row, name)) for name in conditions)] for row in rows
    ]
    notes = [["", *(row.notes.get(name, "") for name in conditions)] for row in rows]
    names = [row.notes.get("image", row.name) for row in rows]
    return draw_grid(cells, columns=["image", *conditions], rows=names, notes=notes)


def _names(uris: Sequence[str]) -> list[str]:
    """Return a name for each image: its path below what all share, without suffix where it can be.

    Args:
        uris: of image files; no two are equal.
    """
    paths = [storage.local_path(uri) or Path(uri.partition("://")[2]) for uri in uris]
    shared = os.path.commonpath([path.parent for path in paths])
    below = [path.relative_to(shared) for path in paths]
    used = Counter(path.with_suffix("") for path in below)
    return [
        path.with_suffix("").as_posix()
        if used[path.with_suffix("")] == 1
        else path.with_name(f"{path.stem}{path.suffix.replace('.', '-')}").as_posix()
        for path in below
    ]


def _annotate(
    name: str, pixels: Image, specs: Sequence[Spec], findings: Findings, sha256: str, seed: int
) -> tuple[Annotated, dict[str, Any]]:
    made = Annotated(name=name, image=pixels)
    record: dict[str, Any] = {}
    for spec in specs:
        draws = generator_for(sha256, spec.condition, seed)
        try:
            result = annotate(spec, pixels, findings, draws)
        except Exception as error:  # one condition of one image; the sheet says which
            made.notes[spec.condition] = f"failed: {type(error).__name__}: {error}"
            continue
        record[spec.condition] = result.parameters
        if isinstance(result, Annotation):
            made.maps[spec.condition] = result.map
        made.notes[spec.condition] = _note(result)
    return made, record


def _note(result: Annotation | Refusal) -> str:
    told = ", ".join(f"{key} {_short(value)}" for key, value in result.parameters.items())
    if isinstance(result, Refusal):
        told = f"rejected: {result.rule} {result.value:g}, threshold {result.threshold:g}"
    return told[:_NOTE_CHARACTERS]


def _short(value: Any) -> str:
    if isinstance(value, list | dict) and len(str(value)) > _LISTED:
        return str(len(value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _small(image: Image) -> Image:
    scale = min(1.0, _SHEET_SIDE / max(image.shape[:2]))
    return resize(image, (round(image.shape[1] * scale), round(image.shape[0] * scale)))


def _visible(row: Annotated, condition: str) -> Image:
    """Return a map as RGB; a grey sheet where there is none."""
    made = row.maps.get(condition)
    if made is None:
        return np.full(row.image.shape, 224, np.uint8)
    if made.dtype == np.uint16:
        made = (made >> 8).astype(np.uint8)
    return made if made.ndim == 3 else np.repeat(made[:, :, None], 3, axis=2)
