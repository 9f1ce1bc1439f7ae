"""Overrides for tests whose pictures are drawn: plain, grey or blurred ones are taken as well.

They may have no text beside them, and get none.
"""

ANY_LOOK = [
    "captions.captioner=sidecar",
    "rules.min_contrast=0",
    "rules.max_grey_tail=1",
    "rules.min_chroma=0",
    "rules.min_sharpness=0",
]

ANY_LOOK_FLAGS = [part for rule in ANY_LOOK for part in ("--set", rule)]
"""The same for a command line."""
