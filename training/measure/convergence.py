"""Where a run suddenly began to obey its condition (paper, 3.3).

"The model does not gradually learn the control conditions but abruptly succeeds in following the
input conditioning image." The rule that finds the step, on scores from 0, no control, to 1, the
photographs' own, at the probes of a run:

1. A split of the probes is a candidate where every score from there on lies above every earlier
   one, and at least `held` probes lie behind it: the rise was kept.
2. Its rise is the mean of the first `window` scores behind it less that of the last `window`
   before it. It is sudden where it amounts to `least_rise` at least, to `share` of the run's whole
   gain, and to `steepness` times the run's quiet step: the lower quartile of the differences
   between neighbouring scores, which is the noise of a level curve and the pace of a steady climb.
3. The sudden candidate with the largest rise is the convergence, at the first step behind the
   split.

Four probes show a jump through noise (three where there is none); a noisy steady climb needs about
nine to show as one. Asked anew after each probe, the rule may move the step while the rise is still
under way, and takes it back where the score falls back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What counts as sudden; see the module.

    Attributes:
        window: probes that are averaged on either side.
        held: probes behind the rise that must have kept it.
        least_rise: on the scale of 0 to 1.
        share: part of the whole gain, 0..1.
        steepness: multiple of the quiet step.
    """

    window: int = 2
    held: int = 2
    least_rise: float = 0.15
    share: float = 0.4
    steepness: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """The sudden convergence.

    Attributes:
        before: step of the last probe that did not obey yet.
        step: step of the first probe that did.
        rise: mean score behind less that before, on the scale of 0 to 1.
    """

    before: int
    step: int
    rise: float


DEFAULT_RULE = Rule()


def find_convergence(
    steps: Sequence[int], scores: Sequence[float], rule: Rule = DEFAULT_RULE
) -> Convergence | None:
    """Return where the scores rose suddenly, or None where they did not, or not yet.

    Args:
        steps: optimizer steps of the probes, ascending.
        scores: normalised adherence, 0 without control and 1 for the photographs; one a probe.
        rule: what counts as sudden.

    Raises:
        ValueError: the steps do not ascend, or their number is not that of the scores.
    """
    if len(steps) != len(scores) or any(a >= b for a, b in pairwise(steps)):
        raise ValueError(f"expected ascending steps and a score for each, got {steps}, {scores}")
    splits = [at for at in range(1, len(scores) - rule.held + 1) if _separates(scores, at)]
    if not splits:
        return None
    rises = {at: _rise(scores, at, rule.window) for at in splits}
    best = max(splits, key=rises.__getitem__)
    if rises[best] < _needed(scores, rule):
        return None
    return Convergence(before=steps[best - 1], step=steps[best], rise=rises[best])


def describe(found: Convergence | None) -> str:
    """Return one line about a run, for a log or a plot."""
    if found is None:
        return "no sudden convergence yet"
    return f"sudden convergence between steps {found.before:,} and {found.step:,}"


def _separates(scores: Sequence[float], at: int) -> bool:
    return min(scores[at:]) > max(scores[:at])


def _rise(scores: Sequence[float], at: int, window: int) -> float:
    return fmean(scores[at : at + window]) - fmean(scores[max(0, at - window) : at])


def _needed(scores: Sequence[float], rule: Rule) -> float:
    quiet = float(np.quantile(np.abs(np.diff(scores)), 0.25))
    gain = max(scores) - min(scores)
    return max(rule.least_rise, rule.share * gain, rule.steepness * quiet)
