"""What a build will take, from measured rates; what was not measured is said, not guessed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from pipeline.recipe.recipe import Recipe

BASE = "base"
"""The work that every image needs beside the networks; see rates.json."""

_MEASURE = {
    "cpu": "python benchmarks/detectors.py --device cpu; then write it into "
    "benchmarks/results/rates.json",
    "cuda": "python benchmarks/gpu.py, which writes benchmarks/results/rates.json",
}

# At which the rates were measured; networks and codecs take as long as there are pixels.
_SIDE = 512


class Rate(BaseModel):
    """How fast one piece of work was on a device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    work: str = Field(description="a checkpoint's name, or base")
    device: str = Field(pattern="^(cpu|cuda)$", description="cpu: one thread; cuda: one GPU")
    images_per_second: float = Field(gt=0, description="at 512 x 512")
    precision: str | None = Field(None, description="of the network, where it was chosen")
    batch: int | None = Field(None, description="images at once, where that was chosen")
    command: str = Field(description="what measured it")
    results: str = Field(description="the file in benchmarks/results that holds it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What annotating some images takes.

    Attributes:
        device: cpu or cuda.
        hours: of one device: of a CPU core, or of a GPU; None where a rate is missing.
        cost: hours times the price; None without either.
        beside: hours of CPU cores beside a GPU, for all that is no network; None on a CPU, or
            where their rate is missing.
        limit: what limits the rate, in words; "" where that is not known.
        settings: precision and batch that rates were measured with, in words by the work.
        unknown: work for which no rate was measured on this device.
    """

    device: str
    hours: float | None
    cost: float | None
    unknown: tuple[str, ...]
    beside: float | None = None
    limit: str = ""
    settings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the estimate in words."""
        kind = "GPU-hours" if self.device == "cuda" else "core-hours"
        if self.hours is None:
            named = ", ".join(self.unknown)
            return [
                f"{kind}: not known; no rate was measured on {self.device} for {named}",
                f"  to measure one: {_MEASURE[self.device]}",
            ]
        lines = [f"{kind}: about {_short(self.hours)}, at rates of benchmarks/results/rates.json"]
        if not self.hours and self.device == "cuda":
            lines = [f"{kind}: none; no network of this recipe looks at an image"]
        lines += [f"  {told}" for told in self.settings]
        if self.beside is not None:
            lines.append(f"core-hours beside: about {_short(self.beside)}, not in the cost")
        if self.limit:
            lines.append(f"limited by {self.limit}")
        if self.cost is not None:
            lines.append(f"cost: about {self.cost:,.2f}, in the currency of the price")
        return lines


def read_rates() -> list[Rate]:
    """Return the rates that come with the project; none where they were left behind."""
    here = Path(__file__).parents[1]
    for path in (here / "rates.json", here.parent / "benchmarks" / "results" / "rates.json"):
        if path.is_file():  # in a wheel, in a checkout
            return [Rate.model_validate(rate) for rate in json.loads(path.read_text())["rates"]]
    return []


def estimate(
    images: int,
    recipe: Recipe,
    device: str,
    price_per_hour: float | None,
    rates: Sequence[Rate],
    *,
    texts: int = 0,
    pixels: int | None = None,
) -> Estimate:
    """Add up the time of `images` images under a recipe.

    Args:
        images: to annotate.
        recipe: its distinct networks run once an image each.
        device: cpu: all work on CPU cores, a thread each; cuda: the networks' time on a GPU, while
            CPU cores beside it do the rest.
        price_per_hour: of one device; None: no cost is asked.
        rates: measured ones.
        texts: images that have a text; a captioner need not look at them, unless at all.
        pixels: of all images as stored; default squares of the recipe's resolution.
    """
    side = recipe.image.resolution
    looks = (images * side**2 if pixels is None else pixels) / _SIDE**2
    known = {rate.work: rate for rate in rates if rate.device == device}
    needed = dict.fromkeys(_work(recipe, device), looks)
    untold = images if recipe.captions.wants_all else images - texts
    if recipe.captions.network is not None and untold:
        needed[f"captions by {recipe.captions.captioner}"] = looks * untold / images
    unknown = tuple(work for work in needed if work not in known)
    if unknown:
        return Estimate(device=device, hours=None, cost=None, unknown=unknown)
    parts = {work: count / known[work].images_per_second / 3600 for work, count in needed.items()}
    hours = sum(parts.values())
    cost = None if price_per_hour is None else hours * price_per_hour
    base = [rate for rate in rates if (rate.work, rate.device) == (BASE, "cpu")]
    beside = looks / base[0].images_per_second / 3600 if base and device == "cuda" else None
    return Estimate(
        device=device,
        hours=hours,
        cost=cost,
        unknown=(),
        beside=beside,
        limit=_limit(parts, beside),
        settings=tuple(filter(None, (_settings(known[work]) for work in needed))),
    )


def _settings(rate: Rate) -> str:
    """Say what a rate was measured with, or "" where nothing was chosen."""
    batch = None if rate.batch is None else f"batch {rate.batch}"
    told = ", ".join(filter(None, (rate.precision, batch)))
    return told and f"{rate.work}: measured with {told}"


def _limit(parts: Mapping[str, float], beside: float | None) -> str:
    """Say what limits the rate.

    Args:
        parts: hours of the device by the work.
        beside: hours of CPU cores beside a GPU.
    """
    hours = sum(parts.values())
    if not hours:
        return "" if beside is None else "the processor: no network looks at an image"
    if beside is not None:
        cores = beside / hours
        return f"the processor below {cores:.1f} cores a GPU, by the networks above"
    most = max(parts, key=lambda work: parts[work])
    named = "decoding, drawing, encoding and writing" if most == BASE else most
    return f"{named}: {parts[most] / hours:.0%} of the time"


def _work(recipe: Recipe, device: str) -> list[str]:
    """Return what takes time on the device beside captions; the base does what needs no network."""
    work = sorted(network.checkpoint for network in recipe.networks)
    return [BASE, *work] if device == "cpu" else work


def _short(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.2g}"
