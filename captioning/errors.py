"""What can go wrong in captioning.

CaptionError (ValueError)        a user can act on it: the message names value, expectation and fix
└── WeightsError                 a checkpoint that is not here, cannot be had, or is another one
"""


class CaptionError(ValueError):
    """Base of every error that captioning raises for its callers."""


class WeightsError(CaptionError):
    """A checkpoint is not here and cannot be had, or has other bytes than it should."""
