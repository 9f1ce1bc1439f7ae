"""The earlier place of what is now in `training.model.controlnet`; imports of it go on working."""

from training.model.base import Base, load_base
from training.model.controlnet import load_controlnet, new_controlnet

__all__ = ["Base", "load_base", "load_controlnet", "new_controlnet"]
