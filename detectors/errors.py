"""What can go wrong in the detectors.

DetectorError (ValueError)       a user can act on it: the message names value, expectation and fix
└── WeightsError                 a checkpoint that is not here, cannot be had, or is another one
"""


class DetectorError(ValueError):
    """Base of every error that the detectors raise for their callers."""


class WeightsError(DetectorError):
    """A checkpoint is not here and cannot be had, or has other bytes than it should."""
