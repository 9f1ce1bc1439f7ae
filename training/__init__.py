"""Floor 2: trains ControlNets on the catalog's datasets, and samples from them.

Plain torch, accelerate and diffusers; knows nothing of recipes, builds or Ray. What it writes, a
bare diffusers script reads.
"""
