"""An image on its way through a unit, and the row that it leaves in the ledger."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from captioning.base import Caption
from catalog.dataset.shards import Block
from catalog.images import Image
from catalog.sample import OK, Rejection, canonical_json, sample_key
from detectors.base import Annotation

_NO_CAPTION = Caption(text="", source="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """An image on its way through a unit; a rejection ends the way.

    Attributes:
        row: of the plan.
        pixels: uint8 RGB (h, w, 3) at the final size; gone once the image is packed or rejected.
        label: ground truth at the final size, where the recipe has labels.
        size: (width, height) in pixels, as stored.
        original: the file's bytes where they are stored as they are.
        jpeg_scale: divisor at which a JPEG was decoded.
        annotations: maps by condition; gone once the sample is packed.
        parameters: what each detector drew, by condition.
        prepared: what the captioning network takes of the image, where it must look at it.
        caption: the chosen text, and the others.
        measures: of the image, by the names of `catalog.tables.MEASURES`.
        earlier: maps of another build by condition, in place of the networks' findings.
        earlier_made_in: name of the environment that those were made in; "" where there are none.
        rejection: why the image gives no sample.
        block: the packed sample, or the maps of an image that a threshold rejected.
    """

    row: Mapping[str, Any]
    pixels: Image | None = None
    label: np.ndarray | None = None
    size: tuple[int, int] = (0, 0)
    original: bytes | None = None
    jpeg_scale: int = 1
    annotations: dict[str, Annotation] = field(default_factory=dict)
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict)
    prepared: Any = None
    caption: Caption = _NO_CAPTION
    measures: dict[str, float] = field(default_factory=dict)
    earlier: dict[str, Annotation] = field(default_factory=dict)
    earlier_made_in: str = ""
    rejection: Rejection | None = None
    block: bytes = b""


def ledger_row(work: Work, block: Block | None) -> dict[str, Any]:
    """Return the row of an image, kept (with the place of its block) or not."""
    row = work.row
    record: dict[str, Any] = {
        "key": sample_key(row["sha256"]),
        "sha256": row["sha256"],
        "source_width": row["width"],
        "source_height": row["height"],
        "popularity": row["popularity"],
        **work.measures,
    }
    if work.rejection is not None:
        said = work.rejection
        verdict = {"status": said.status, "value": said.value, "threshold": said.threshold}
        found = {"parameters": canonical_json(work.parameters).decode()} if work.parameters else {}
        return {**record, **verdict, **found, **_placed(block), "detail": said.detail}
    assert block is not None, work.row
    return {
        **record,
        **_placed(block),
        "status": OK,
        "width": work.size[0],
        "height": work.size[1],
        "caption": work.caption.text,
        "parameters": canonical_json(work.parameters).decode(),
    }


def _placed(block: Block | None) -> dict[str, Any]:
    if block is None:
        return {}
    return {"offset": block.offset, "length": block.length, "block_sha256": block.sha256}
