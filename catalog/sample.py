"""What one row is: a sample that was kept, or the reason why it was not."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

KEY_CHARACTERS = 32

_ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")

OK = "ok"
REMOVED = "removed"
"""Status of what was a sample until it was taken down and compacted away."""

DROPPED = "dropped"
"""Status of a sample, or of a rejected image with maps, that nothing showed and a compaction took.

Where its image comes back, it is annotated anew.
"""


def sample_key(sha256: str) -> str:
    """Return the key of the image with this hex sha256: 32 hex characters, without dots.

    WebDataset splits a member's name at the first dot, so a key must hold none.
    """
    return sha256[:KEY_CHARACTERS]


def sha256_hex(data: bytes) -> str:
    """Return the hex sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """Encode `value` as JSON with one spelling: sorted keys, no spaces, UTF-8, no NaN.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )
    return text.encode("utf-8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One training sample, encoded.

    Attributes:
        key: 32 hex characters of the source image's sha256.
        image: the encoded picture, RGB.
        image_format: ``jpg`` or ``png``; the member's extension.
        conditions: PNG bytes by condition name, each of the image's height and width.
        caption: the chosen text; may be empty.
        metadata: JSON object: source, resizing, drawn parameters, hashes.
    """

    key: str
    image: bytes
    image_format: str
    conditions: dict[str, bytes]
    caption: str
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why an image gave no sample: data, not an exception.

    Attributes:
        status: ``rejected:<rule>`` or ``failed:<error class>``.
        value: the measured number that the rule judged, where there is one.
        threshold: the number that it was judged by.
        detail: one line for a person.
    """

    status: str
    value: float | None = None
    threshold: float | None = None
    detail: str | None = None


def rejected(
    rule: str,
    *,
    value: float | None = None,
    threshold: float | None = None,
    detail: str | None = None,
) -> Rejection:
    """Return the rejection of an image by `rule`."""
    said = detail and _alike(detail)
    return Rejection(status=f"rejected:{rule}", value=value, threshold=threshold, detail=said)


def failed(error: BaseException) -> Rejection:
    """Return the row of an image on which the code, not a rule, gave up."""
    text = _alike(" ".join(str(error).split()))[:500]
    return Rejection(status=f"failed:{type(error).__name__}", detail=text or None)


def _alike(text: str) -> str:
    """Return a message without the addresses in it: no two processes have the same."""
    return _ADDRESS.sub("0x...", text)
