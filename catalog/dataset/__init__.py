"""A dataset's folder: commits, shards, views, takedowns."""
