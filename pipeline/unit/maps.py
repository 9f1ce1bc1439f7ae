"""The second step of a unit: what the networks found to condition maps, judged by the rules."""

from dataclasses import replace

from catalog.dataset.shards import pack_maps
from catalog.errors import of_the_place
from catalog.images import Image
from catalog.sample import Rejection, failed, sample_key
from detectors.base import Annotation, Result, Spec, generator_for, keep_or_refuse
from detectors.graph import Findings, annotate
from detectors.nsfw import NsfwNetwork
from pipeline.recipe.recipe import Recipe
from pipeline.unit.image_rules import covered, first_rejection, with_coverage
from pipeline.unit.image_work import Work
from pipeline.unit.pack import png_encoder


class MapMaker:
    """Makes all maps of an image; safe in any thread."""

    def __init__(self, recipe: Recipe, *, keeps: bool) -> None:
        """Prepare for a recipe; `keeps` says whether to keep the maps of rejected images."""
        self._recipe = recipe
        self._keeps = keeps
        self._encode_png = png_encoder(recipe)

    def __call__(self, work: Work, findings: Findings) -> Work:
        """Make every map of one image; a failure ends its way, and so does a refusal, after all.

        What is of the place, such as a device that fails, is raised.
        """
        pixels = work.pixels
        assert pixels is not None
        try:
            work = _with_nsfw(work, findings)
            results = self._results(work, pixels, findings)
            rejection = first_rejection(work.measures, results.values(), self._recipe.rules)
            if rejection is not None:
                return self._hold(work, results, rejection)
        except Exception as error:  # recorded as failed:<class>, never as a black map
            if of_the_place(error):
                raise
            return replace(work, pixels=None, rejection=failed(error))
        made = {name: one for name, one in results.items() if isinstance(one, Annotation)}
        return replace(work, annotations=made)

    def _results(self, work: Work, pixels: Image, findings: Findings) -> dict[str, Result]:
        specs = self._recipe.detectors
        return {spec.condition: self._result(spec, work, pixels, findings) for spec in specs}

    def _result(self, spec: Spec, work: Work, pixels: Image, findings: Findings) -> Result:
        if spec.condition in work.earlier:
            return covered(keep_or_refuse(spec, work.earlier[spec.condition]), self._recipe.rules)
        draws = generator_for(work.row["sha256"], spec.condition, self._recipe.seed)
        result = with_coverage(annotate(spec, pixels, findings, draws, work.label))
        return covered(result, self._recipe.rules)

    def _hold(self, work: Work, results: dict[str, Result], rejection: Rejection) -> Work:
        """End an image's way, and keep what was found: another threshold is then a query.

        What networks made is packed as well, so that it is not made again.
        """
        parameters = {name: result.parameters for name, result in results.items()}
        block = b""
        if self._keeps:
            made = {name: one.map for name, one in results.items() if one.map is not None}
            maps = {name: self._encode_png(drawn) for name, drawn in made.items()}
            block = pack_maps(sample_key(work.row["sha256"]), maps, {"conditions": parameters})
        return replace(
            work, pixels=None, earlier={}, parameters=parameters, rejection=rejection, block=block
        )


def _with_nsfw(work: Work, findings: Findings) -> Work:
    """Take open_nsfw's score where it was asked for; raises what its network raised."""
    score = findings.get(NsfwNetwork())
    if isinstance(score, Exception):
        raise score
    return work if score is None else replace(work, measures=work.measures | {"nsfw": score})
