"""The story of an image, in lines."""

import json
from collections.abc import Iterator
from typing import Any

from rich.markup import escape

from pipeline.figures import human_bytes
from pipeline.ledger.explain import Story, UnitOutcome
from pipeline.terminal.console import out


def show(story: Story) -> None:
    """Print the story of an image."""
    place = story.source["uri"]
    for name, words in (("offset", "at byte"), ("row", "row")):
        if story.source[name] is not None:
            place += f", {words} {story.source[name]:,}"
    out.print(f"[bold]{escape(place)}[/]")
    for name, told in _lines(story):
        out.print(f"  {name:<11} {escape(' '.join(told.split()))}")


def _lines(story: Story) -> Iterator[tuple[str, str]]:
    yield "key", story.key or "none: its bytes could not be read"
    yield "status", _verdict(story, story.against)
    found = story.source
    size = f"{found['width']}x{found['height']} {found['format'] or ''}".strip()
    yield "found", f"{size}, {human_bytes(found['length'] or 0)}"
    for name in ("caption", "label", "popularity", "scores"):
        if found[name]:
            yield f"its {name}", str(found[name])
    for unit in story.units:
        yield from _unit(unit)
    if story.sample is not None:
        yield from _sample(story.sample)
        yield "subsets", ", ".join(story.subsets) or "in none"
    if story.quarantined:
        yield "set aside", story.quarantined
    if story.removed:
        yield "removed", "it was taken down, and is in no view"


def _unit(unit: UnitOutcome) -> Iterator[tuple[str, str]]:
    again = f", generation {unit.generation}" if unit.generation else ""
    said = "not committed yet" if unit.status is None else _verdict(unit)
    said += f", by {unit.condition}" if unit.condition else ""
    yield "unit", f"{unit.index} ({unit.unit_id}){again}: {said}"
    for condition, drawn in (unit.parameters or {}).items():
        yield f"  {condition}", json.dumps(drawn, ensure_ascii=False)
    if unit.measures:
        yield "  measured", ", ".join(f"{name} {value:g}" for name, value in unit.measures.items())


def _sample(sample: dict[str, Any]) -> Iterator[tuple[str, str]]:
    rank = "no rank yet" if sample["rank"] is None else f"rank {sample['rank']:,}"
    where = f"shards/{sample['shard']} at byte {sample['offset']:,}"
    size = f"{human_bytes(sample['length'])}, {sample['width']}x{sample['height']}"
    yield "sample", f"{rank}, {where}, {size}"
    yield "caption", sample["caption"] or "empty"


def _verdict(said: Story | UnitOutcome, against: str | None = None) -> str:
    """Say a status with what the rule measured, by what it judged, and why."""
    told = [] if said.value is None else [f"{said.value:g}"]
    told += [] if said.threshold is None else [f"threshold {said.threshold:g}"]
    told += [f"against {against}"] if against else []
    told += [said.detail] if said.detail else []
    return ": ".join([str(said.status), *([", ".join(told)] if told else [])])
