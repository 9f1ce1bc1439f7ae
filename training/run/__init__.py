"""The run itself: steps, checkpoints, its folder."""
