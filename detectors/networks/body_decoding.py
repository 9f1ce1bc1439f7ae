"""Heatmaps and part affinity fields to people, as OpenPose does (Cao et al., 2019).

The reference resizes 57 maps to the image's size, twice, and blurs 18 of them. All of that is
linear and separable, so here it is one small matrix an axis: the 18 smoothed maps come out of two
matrix products, and of the 38 fields only the points that are asked for are ever made.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from detectors.keypoints import OPENPOSE18, Person

Matrix = Float32[np.ndarray, "full maps"]

JOINTS = len(OPENPOSE18)
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12),
    (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17), (2, 16), (5, 17),
)  # fmt: skip
"""Pairs of joints that a field connects, in the order in which people are put together."""
FIELDS = (12, 20, 14, 16, 22, 24, 0, 2, 4, 6, 8, 10, 28, 30, 34, 32, 36, 18, 26)
"""Channel of each limb's field in x; the next one is in y."""

_STRIDE = 8
_SIGMA = 3.0  # of the blur before peaks are looked for; pixels of the image
_PEAK = 0.1  # lowest peak of a smoothed heatmap
_SAMPLES = 10  # points along a limb
_FIELD = 0.05  # a point agrees with the limb above this
_AGREE = 8  # more points than this must agree
_FOUNDING = 17  # limbs that may start a person; the last two only join ears to shoulders
_MIN_PARTS = 4
_MIN_SCORE = 0.4  # of a person, a part


@dataclass(frozen=True, slots=True, kw_only=True)
class Resizing:
    """What takes one axis of a map to the image.

    Attributes:
        plain: resizes.
        smooth: resizes and blurs, for the search of peaks.
    """

    plain: Matrix
    smooth: Matrix


@lru_cache(maxsize=64)
def resizing(maps: int, seen: int, full: int) -> Resizing:
    """Return the matrices that take one axis of a map to the image.

    Args:
        maps: length of the map.
        seen: how many pixels of it, times the stride, the image had when the net saw it; what is
            beyond was padding.
        full: length of the image's axis; pixels.
    """
    large = _resize(np.eye(maps, dtype=np.float32), maps * _STRIDE)[:seen]
    plain = _resize(large, full)
    blurred = gaussian_filter1d(plain, _SIGMA, axis=0)
    return Resizing(plain=plain, smooth=np.asarray(blurred, np.float32))


def decode(
    heat: Float[Tensor, "b 19 h w"],
    pafs: Float[Tensor, "b 38 h w"],
    rows: Resizing,
    columns: Resizing,
) -> list[list[Person]]:
    """Return the people of each image, in pixels of the full size.

    Args:
        heat: a heatmap a joint, and the ground's.
        pafs: a field in x and y a limb.
        rows: takes the maps' height to the image's.
        columns: takes the maps' width to the image's.
    """
    down, across = (torch.from_numpy(axis.plain).to(heat) for axis in (rows, columns))
    smooth_down, smooth_across = (
        torch.from_numpy(axis.smooth).to(heat) for axis in (rows, columns)
    )
    smooth = smooth_down @ heat[:, :JOINTS] @ smooth_across.T  # (B, 18, H, W)
    found = _peaks(smooth).nonzero()  # (n, 4): image, joint, y, x, in this order
    image, joint, y, x = found.unbind(1)
    scores = _at(heat[image, joint], down[y], across[x])
    places, values = found.cpu().numpy(), scores.double().cpu().numpy()
    return [
        _people(places[places[:, 0] == at], values[places[:, 0] == at], pafs[at], down, across)
        for at in range(len(heat))
    ]


@dataclass(slots=True, kw_only=True)
class _Body:
    """A person that is being put together: a peak for each joint, -1 for none."""

    peaks: Int64[np.ndarray, "18"] = field(default_factory=lambda: np.full(JOINTS, -1))
    score: float = 0.0
    parts: int = 0


def _resize(signals: Float32[np.ndarray, "n m"], length: int) -> Float32[np.ndarray, "length m"]:
    method = cv2.INTER_AREA if length < len(signals) else cv2.INTER_LANCZOS4
    size = (signals.shape[1], length)
    resized = cv2.resize(signals, size, interpolation=method)
    return np.asarray(resized, np.float32).reshape(length, signals.shape[1])


def _peaks(maps: Float[Tensor, "b joints h w"]) -> Tensor:
    """Mark what is above the threshold and not below any of its four neighbours."""
    around = torch.nn.functional.pad(maps, (1, 1, 1, 1))
    return (
        (maps > _PEAK)
        & (maps >= around[..., :-2, 1:-1])
        & (maps >= around[..., 2:, 1:-1])
        & (maps >= around[..., 1:-1, :-2])
        & (maps >= around[..., 1:-1, 2:])
    )


def _at(
    maps: Float[Tensor, "*n h w"], rows: Float[Tensor, "n h"], columns: Float[Tensor, "n w"]
) -> Float[Tensor, " n"]:
    """Return the resized maps' values at n points, whose rows of the matrices are given."""
    if maps.ndim == 2:
        return ((rows @ maps) * columns).sum(1)
    return torch.einsum("nh,nhw,nw->n", rows, maps, columns)


def _people(
    places: Int64[np.ndarray, "n 4"],
    scores: Float64[np.ndarray, " n"],
    pafs: Float[Tensor, "38 h w"],
    down: Float[Tensor, "full_h h"],
    across: Float[Tensor, "full_w w"],
) -> list[Person]:
    """Join one image's peaks to people."""
    points = places[:, [3, 2]].astype(np.float64)  # x, y
    peaks = [np.flatnonzero(places[:, 1] == joint) for joint in range(JOINTS)]
    bodies: list[_Body] = []
    for limb, (start, end) in enumerate(LIMBS):
        if not len(peaks[start]) or not len(peaks[end]):
            continue
        agreement = _agreement(
            points[peaks[start]], points[peaks[end]], pafs[FIELDS[limb] :][:2], down, across
        )
        for a, b, score in _matched(agreement, peaks[start], peaks[end]):
            _join(bodies, (start, end), (a, b), score, scores, founds=limb < _FOUNDING)
    kept = [body for body in bodies if body.parts >= _MIN_PARTS]
    return [_person(body, points, scores) for body in kept if body.score / body.parts >= _MIN_SCORE]


def _agreement(
    starts: Float64[np.ndarray, "a 2"],
    ends: Float64[np.ndarray, "b 2"],
    fields: Float[Tensor, "2 h w"],
    down: Float[Tensor, "full_h h"],
    across: Float[Tensor, "full_w w"],
) -> Float64[np.ndarray, "a b"]:
    """Return how well a limb's field runs from each start to each end; -inf where it does not."""
    limbs = ends[None] - starts[:, None]  # (a, b, 2)
    lengths = np.maximum(np.linalg.norm(limbs, axis=2), 0.001)
    steps = np.linspace(0, 1, _SAMPLES)[:, None]
    at = np.rint(starts[:, None, None] + limbs[:, :, None] * steps).astype(np.int64)
    flat = torch.from_numpy(at.reshape(-1, 2)).to(fields.device)
    rows, columns = down[flat[:, 1]], across[flat[:, 0]]
    sampled = torch.stack([_at(part, rows, columns) for part in fields], 1)  # (n, 2)
    along = (
        sampled.double().cpu().numpy().reshape(*at.shape) * (limbs / lengths[..., None])[:, :, None]
    )
    dots = along.sum(3)  # (a, b, samples)
    score = dots.mean(2) + np.minimum(0.5 * len(down) / lengths - 1, 0)
    good = ((dots > _FIELD).sum(2) > _AGREE) & (score > 0)
    return np.where(good, score, -np.inf)


def _matched(
    agreement: Float64[np.ndarray, "a b"],
    starts: Int64[np.ndarray, " a"],
    ends: Int64[np.ndarray, " b"],
) -> list[tuple[int, int, float]]:
    """Pair starts and ends greedily, best first; each peak at most once."""
    pairs: list[tuple[int, int, float]] = []
    free_starts, free_ends = set(range(len(starts))), set(range(len(ends)))
    for flat in np.argsort(-agreement, axis=None, kind="stable"):
        a, b = divmod(int(flat), len(ends))
        if agreement[a, b] == -np.inf:
            break
        if a in free_starts and b in free_ends:
            free_starts.remove(a)
            free_ends.remove(b)
            pairs.append((int(starts[a]), int(ends[b]), float(agreement[a, b])))
    return pairs


def _join(
    bodies: list[_Body],
    limb: tuple[int, int],
    pair: tuple[int, int],
    score: float,
    scores: Float64[np.ndarray, " n"],
    *,
    founds: bool,
) -> None:
    """Give a matched limb to the body that has one of its peaks, merge two, or found a new one."""
    (start, end), (a, b) = limb, pair
    owners = [body for body in bodies if body.peaks[start] == a or body.peaks[end] == b][:2]
    if len(owners) == 2 and not ((owners[0].peaks >= 0) & (owners[1].peaks >= 0)).any():
        first, second = owners
        first.peaks = np.where(second.peaks >= 0, second.peaks, first.peaks)
        first.parts += second.parts
        first.score += second.score + score
        bodies[:] = [body for body in bodies if body is not second]
    elif owners and (len(owners) == 2 or owners[0].peaks[end] != b):
        owners[0].peaks[end] = b
        owners[0].parts += 1
        owners[0].score += float(scores[b]) + score
    elif not owners and founds:
        body = _Body(score=float(scores[a] + scores[b]) + score, parts=2)
        body.peaks[[start, end]] = a, b
        bodies.append(body)


def _person(
    body: _Body, points: Float64[np.ndarray, "n 2"], scores: Float64[np.ndarray, " n"]
) -> Person:
    keypoints = np.full((JOINTS, 3), np.nan)
    seen = body.peaks >= 0
    keypoints[seen] = np.column_stack([points[body.peaks[seen]], scores[body.peaks[seen]]])
    return Person(keypoints=keypoints, score=body.score / body.parts)
