"""How well pictures obey their conditions, on fixed held-out samples with fixed noise.

The loss does not show it: through the sudden convergence (paper, 3.3) it stays where it was. So
pictures are made, and the condition is found in them again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from catalog.images import Image, decode_image
from catalog.sample import Sample
from detectors.graph import by_size
from training.data.view import SampleView
from training.errors import DataError
from training.measure.batches import in_batches
from training.measure.redetect import Found, Metric, Redetector
from training.model.base import Base
from training.sample.for_probes import Sampler, reconstruct


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSample:
    """A held-out sample.

    Attributes:
        key: its key in the dataset.
        image: the photograph.
        hint: its condition as the networks see it.
        caption: the prompt.
        wanted: the condition as the metric sees it.
    """

    key: str
    image: Image
    hint: Image
    caption: str
    wanted: Found


@dataclass(frozen=True, slots=True, kw_only=True)
class AdherenceScore:
    """Scores of some pictures, in the metric's unit.

    Attributes:
        per_sample: one score a held-out sample.
        images: the pictures.
    """

    per_sample: tuple[float, ...]
    images: tuple[Image, ...]

    @property
    def mean(self) -> float:
        """The mean over the samples."""
        return fmean(self.per_sample)

    @property
    def std(self) -> float:
        """The standard deviation over the samples."""
        return pstdev(self.per_sample)


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What a score stands beside, in the metric's unit: means over the same samples.

    Attributes:
        baseline: pictures made without control.
        real: the photographs themselves.
        reconstruction: the photographs through the autoencoder, which no picture of it can beat.
    """

    baseline: float
    real: float
    reconstruction: float

    def normalised(self, score: float) -> float:
        """Return a score on the scale of 0, no control, to 1, the photographs."""
        return normalised(score, self.baseline, self.real)


def normalised(score: float, baseline: float, ceiling: float) -> float:
    """Return where a score lies between a baseline (0) and a ceiling (1); it may lie outside.

    Higher is better on this scale, whichever way the metric's own runs.

    Raises:
        DataError: baseline and ceiling are one: the samples tell nothing.
    """
    if baseline == ceiling:
        raise DataError(
            f"without control the score is {baseline:.3g}, that of the photographs themselves: "
            "these samples cannot show adherence; hold out others, or more"
        )
    return (score - baseline) / (ceiling - baseline)


class AdherenceProbe:
    """Fixed samples and fixed seeds, so that two scores differ by the networks alone."""

    def __init__(
        self, samples: Sequence[ProbeSample], redetector: Redetector, *, seed: int
    ) -> None:
        """Prepare; sample i starts from the noise of seed ``seed + i``.

        Args:
            samples: held-out samples.
            redetector: finds their condition in pictures.
            seed: of the noise.

        Raises:
            DataError: there are no samples.
        """
        if not samples:
            raise DataError("adherence needs at least 1 held-out sample, got none")
        self.samples = tuple(samples)
        self._redetector = redetector
        self._seed = seed

    @property
    def metric(self) -> Metric:
        """What the scores mean."""
        return self._redetector.metric

    def measure(self, sample: Sampler, *, batch_size: int = 8) -> AdherenceScore:
        """Make a picture for each sample and score it.

        One on which the detector fails gets the metric's worst score.

        Args:
            sample: makes the pictures.
            batch_size: pictures a call; fewer where the device's memory does not suffice.
        """
        return self._measure(sample, range(len(self.samples)), batch_size)

    def measure_shuffled(self, sample: Sampler, *, batch_size: int = 8) -> AdherenceScore:
        """Make each picture by another sample's condition, and score it against its own.

        A check of the measure itself: prompt, noise and networks are the same, so the score must
        fall to that of no control.

        Raises:
            DataError: a sample has no other of its size.
        """
        return self._measure(sample, self._others(), batch_size)

    def measure_images(self, images: Sequence[Image]) -> AdherenceScore:
        """Score pictures that are there, one a sample."""
        return self._score(images, forgiving=False)

    def references(
        self, uncontrolled: Sampler, base: Base, *, batch_size: int = 8
    ) -> tuple[References, AdherenceScore]:
        """Measure what a score stands beside; return it with the scores of no control.

        Args:
            uncontrolled: makes pictures by prompt and seed alone.
            base: whose autoencoder the photographs go through.
            batch_size: pictures a call.
        """
        photographs = [sample.image for sample in self.samples]
        baseline = self.measure(uncontrolled, batch_size=batch_size)
        references = References(
            baseline=baseline.mean,
            real=self.measure_images(photographs).mean,
            reconstruction=self.measure_images(reconstruct(base, photographs)).mean,
        )
        return references, baseline

    def _measure(
        self, sample: Sampler, conditions: Sequence[int], batch_size: int
    ) -> AdherenceScore:
        made: dict[int, Image] = {}

        def make(batch: list[int]) -> Sequence[Image]:
            return sample(
                [self.samples[conditions[at]].hint for at in batch],
                [self.samples[at].caption for at in batch],
                [self._seed + at for at in batch],
            )

        for group in by_size([one.image for one in self.samples]):
            for batch, pictures in in_batches(make, group, batch_size):
                made |= zip(batch, pictures, strict=True)
        return self._score([made[at] for at in range(len(self.samples))], forgiving=True)

    def _score(self, images: Sequence[Image], *, forgiving: bool) -> AdherenceScore:
        wanted = [sample.wanted for sample in self.samples]
        scores = self._redetector.scores(images, wanted, forgiving=forgiving)
        return AdherenceScore(per_sample=tuple(scores), images=tuple(images))

    def _others(self) -> list[int]:
        """Return another sample of the same size for each: the next one."""
        others = [0] * len(self.samples)
        for group in by_size([one.image for one in self.samples]):
            if len(group) < 2:
                raise DataError(
                    f"sample {self.samples[group[0]].key} is the only one of its size; shuffled "
                    "conditions need 2: hold out more samples"
                )
            for at, other in zip(group, group[1:] + group[:1], strict=True):
                others[at] = other
        return others


def probe_samples(
    view: SampleView, condition: str, redetector: Redetector, *, count: int | None = None
) -> list[ProbeSample]:
    """Read a view's first samples.

    Args:
        view: held-out rows.
        condition: name of the condition.
        redetector: of the same condition.
        count: how many; None for all.

    Raises:
        DataError: a sample lacks the condition, or what its detector noted.
    """
    rows = range(len(view) if count is None else min(count, len(view)))
    return [_probe_sample(view.read(row), condition, redetector) for row in rows]


def _probe_sample(sample: Sample, condition: str, redetector: Redetector) -> ProbeSample:
    wanted = redetector.wanted(sample)
    return ProbeSample(
        key=sample.key,
        image=decode_image(sample.image),
        hint=decode_image(sample.conditions[condition]),
        caption=sample.caption,
        wanted=wanted,
    )
