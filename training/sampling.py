"""The earlier place of what is now in `training.sample.sampler`; imports of it go on working."""

from training.sample.sampler import Sampled, Sampling, sample

__all__ = ["Sampled", "Sampling", "sample"]
