"""Rules that judge one image and its maps; each asks only numbers, which the ledger keeps.

So the same functions judge while a dataset is built and, from the ledger alone, what other
thresholds would have kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from catalog.sample import Rejection, rejected
from detectors.base import Refusal, Result, Spec
from pipeline.recipe.recipe import Rules


def broken_rule(measures: Mapping[str, float], rules: Rules) -> Rejection | None:
    """Judge an image by its `catalog.source.quality.Measures`; its first broken rule is told."""
    limits = (
        ("flat", measures["contrast"], rules.min_contrast, -1),
        ("damaged", measures["grey_tail"], rules.max_grey_tail, 1),
        ("greyscale", measures["chroma"], rules.min_chroma, -1),
        ("blur", measures["sharpness"], rules.min_sharpness, -1),
    )
    for rule, value, limit, side in limits:
        if (value - limit) * side > 0:
            return rejected(rule, value=value, threshold=limit)
    return None


def refuse_coverage(coverage: float, rules: Rules) -> Refusal | None:
    """Judge the share of a map that is not black, 0..1."""
    if coverage < rules.min_coverage:
        return Refusal(rule="coverage", value=coverage, threshold=rules.min_coverage)
    if coverage > rules.max_coverage:
        return Refusal(rule="coverage", value=coverage, threshold=rules.max_coverage)
    return None


def with_coverage(result: Result) -> Result:
    """Add to the parameters which share of the map is not black; a refused one's too."""
    if result.map is None:
        return result
    marked = result.map.any(axis=2) if result.map.ndim == 3 else result.map
    coverage = round(np.count_nonzero(marked) / marked.size, 6)
    return replace(result, parameters={**result.parameters, "coverage": coverage})


def covered(result: Result, rules: Rules) -> Result:
    """Refuse a map that covers too little or too much, and keep it; what is refused stays so."""
    if isinstance(result, Refusal):
        return result
    refusal = refuse_coverage(result.parameters["coverage"], rules)
    if refusal is None:
        return result
    return replace(refusal, parameters=result.parameters, map=result.map)


def first_rejection(
    measures: Mapping[str, float], results: Iterable[Result], rules: Rules
) -> Rejection | None:
    """Return why an image gives no sample: by its score, then by its maps in their order."""
    if "nsfw" in measures and measures["nsfw"] > rules.max_nsfw:
        return rejected("nsfw", value=measures["nsfw"], threshold=rules.max_nsfw)
    for one in results:
        if isinstance(one, Refusal):
            return rejected(one.rule, value=one.value, threshold=one.threshold)
    return None


def refuse_parameters(spec: Spec, parameters: Mapping[str, Any], rules: Rules) -> Refusal | None:
    """Judge a map by what was kept of it: by its spec's thresholds, then by coverage."""
    return spec.refuse(parameters) or refuse_coverage(parameters["coverage"], rules)
