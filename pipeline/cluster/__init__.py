"""Machines: what they are, whether a build would work on them."""
