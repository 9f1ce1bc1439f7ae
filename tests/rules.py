"""Overrides for tests whose pictures are drawn: plain, grey or blurred ones are taken as well."""

ANY_LOOK = [
    "rules.min_contrast=0",
    "rules.max_grey_tail=1",
    "rules.min_chroma=0",
    "rules.min_sharpness=0",
]

ANY_LOOK_FLAGS = [part for rule in ANY_LOOK for part in ("--set", rule)]
"""The same for a command line."""
