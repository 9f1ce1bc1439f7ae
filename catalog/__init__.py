"""Floor 1: what images there are, in which order, and what has been committed about them.

Knows storage, rows, shards and commits; knows nothing of networks (it never imports torch), recipes
or Ray.
"""
