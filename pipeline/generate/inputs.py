"""Where the conditions of `generate` come from: maps, pictures that are looked at, a dataset."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catalog.dataset.dataset import Dataset
from catalog.errors import ImageError
from catalog.images import Ground, Image, decode_image, fit
from catalog.png import encode_png
from catalog.sample import sha256_hex
from detectors.base import Refusal, generator_for
from detectors.graph import Graph, annotate
from pipeline.errors import UsageError
from pipeline.evaluate.rows import held_out_rows
from pipeline.generate.config import GenerateConfig
from pipeline.sheet.sheet import specs_of
from training.data.view import SampleView


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one row of pictures is made from.

    Attributes:
        name: of files, and on the grid.
        hints: a condition map a ControlNet, RGB.
        titles: what each of them is.
        source: the picture that they were found in, where there is one.
        caption: the dataset's, where it comes from one.
        detected: the maps that were made here, as PNG, by condition.
    """

    name: str
    hints: list[Image]
    titles: list[str]
    source: Image | None = None
    caption: str | None = None
    detected: dict[str, bytes] = field(default_factory=dict)


def read_rows(config: GenerateConfig) -> list[Row]:
    """Return the rows that were asked for, all of them read.

    Raises:
        UsageError: a file that cannot be read, or in which nothing was found.
        CatalogError: no such dataset, subset or condition.
        DetectorError: a detector's network is not on this machine.
    """
    if config.dataset is not None:
        return list(_from_dataset(config))
    return list(_from_maps(config) if config.image else _from_pictures(config))


def read_picture(path: Path, flag: str) -> Image:
    """Read an image file; raises UsageError in terms of the flag that named it."""
    return _decode(_read(path, flag), path, flag)


def read_map(path: Path, flag: str) -> Image:
    """Read a condition map or mask, on black where it is transparent; raises as `read_picture`."""
    return _decode(_read(path, flag), path, flag, ground="black")


def _from_maps(config: GenerateConfig) -> Iterator[Row]:
    maps = [read_map(path, "--image") for path in config.image]
    names = _names(config.image)
    if len(config.controlnet) > 1:
        yield Row(name=names[0], hints=maps, titles=names)
        return
    for name, one in zip(names, maps, strict=True):
        yield Row(name=name, hints=[one], titles=["condition"])


def _from_pictures(config: GenerateConfig) -> Iterator[Row]:
    specs = specs_of(config.detect, config.overrides)
    graph = Graph(specs, device=config.device)
    for path, name in zip(config.source, _names(config.source), strict=True):
        data = _read(path, "--source")
        picture = _decode(data, path, "--source")
        picture = fit(picture, resolution=config.resolution, crop="none")
        (findings,) = graph.run([picture])
        maps: dict[str, bytes] = {}
        for spec in specs:
            draws = generator_for(sha256_hex(data), spec.condition, 0)
            result = annotate(spec, picture, findings, draws)
            if isinstance(result, Refusal):
                raise UsageError(
                    f"--source {path}: {spec.condition} gives no map: {result.rule} "
                    f"{result.value:g}, threshold {result.threshold:g}; take another picture"
                )
            maps[spec.condition] = encode_png(result.map)
        yield Row(
            name=name,
            hints=[decode_image(maps[condition]) for condition in config.detect],
            titles=config.detect,
            source=picture,
            detected=maps,
        )


def _from_dataset(config: GenerateConfig) -> Iterator[Row]:
    view = _view(config)
    conditions = config.condition or list(view.conditions)
    if len(conditions) != len(config.controlnet):
        known = ", ".join(view.conditions)
        raise UsageError(
            f"{config.dataset} has the conditions {known}: "
            "name one for each ControlNet with --condition"
        )
    if unknown := [name for name in conditions if name not in view.conditions]:
        raise UsageError(
            f"--condition {unknown[0]}: {config.dataset} has {', '.join(view.conditions)}"
        )
    for index in range(min(config.count, len(view))):
        one = view.read(index)
        yield Row(
            name=one.key[:8],
            hints=[decode_image(one.conditions[name]) for name in conditions],
            titles=conditions,
            source=decode_image(one.image),
            caption=one.caption,
        )


def _view(config: GenerateConfig) -> SampleView:
    """Return the rows of a dataset to take conditions from."""
    assert config.dataset is not None
    dataset = Dataset.open(config.dataset)
    if config.split == "all":
        return dataset.view(config.subset)
    return held_out_rows(Path(config.controlnet[0]), dataset)


def _names(paths: Sequence[Path]) -> list[str]:
    """Return the files' stems, numbered where there are several of one."""
    names: list[str] = []
    for path in paths:
        tries = itertools.chain([path.stem], (f"{path.stem}-{n}" for n in itertools.count(2)))
        names.append(next(name for name in tries if name not in names))
    return names


def _read(path: Path, flag: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{flag} {path} does not exist") from None
    except OSError as error:
        raise UsageError(f"{flag} {path} cannot be read: {error.strerror}") from error


def _decode(data: bytes, path: Path, flag: str, *, ground: Ground = "white") -> Image:
    try:
        return decode_image(data, ground=ground)
    except ImageError as error:
        raise UsageError(f"{flag} {path} is no usable image: {error}") from error
