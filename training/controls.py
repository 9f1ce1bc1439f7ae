"""The earlier place of what is now in `training.sample.controls`; imports of it go on working."""

from training.sample.controls import Conditioned, Control

__all__ = ["Conditioned", "Control"]
