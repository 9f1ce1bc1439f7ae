"""The earlier place of what is now in `training.model.choose`; imports of it go on working."""

from training.model.choose import load_denoiser

__all__ = ["load_denoiser"]
