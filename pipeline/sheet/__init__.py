"""Maps of a few images, to look at."""
