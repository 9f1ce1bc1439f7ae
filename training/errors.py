"""What can go wrong in training.

TrainingError (ValueError)       a user can act on it: the message names value, expectation and fix
├── BaseModelError               a base model that is missing, incomplete or of another shape
├── ControlNetError              a folder without a ControlNet, or with one for another base
├── DataError                    a dataset that this training cannot read: condition, size, number
│   └── DamagedSample            one sample of it, whose place in a step another takes
├── DataUnavailable              a disk or storage that does not give a sample, after all tries
├── ResumeMismatch               the run folder holds another training than the one asked for
├── CheckpointError              a checkpoint that is damaged
├── DivergedError                the loss is no longer a finite number
└── SamplingError                a request for images that cannot be met
"""


class TrainingError(ValueError):
    """Base of every error that training raises for its callers."""


class BaseModelError(TrainingError):
    """A base model is missing, incomplete, or its networks do not fit together."""


class ControlNetError(TrainingError):
    """A folder holds no ControlNet, or one that was made for another base."""


class DataError(TrainingError):
    """The dataset lacks the condition, has no rows, or has sizes that cannot be trained on."""


class DamagedSample(DataError):
    """One sample's bytes changed, or are no pair of pictures that can be trained on."""


class DataUnavailable(TrainingError):
    """A disk, mount or storage does not give a sample, which says nothing of the sample."""


class ResumeMismatch(TrainingError):
    """The run folder holds another training than the one asked for."""


class CheckpointError(TrainingError):
    """A checkpoint's files differ from what its manifest recorded."""


class DivergedError(TrainingError):
    """The loss is infinite or not a number."""


class SamplingError(TrainingError):
    """Images were asked for that cannot be made: a size, a missing seed, a missing model."""
