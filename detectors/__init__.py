"""Floor 1: pictures to condition maps; knows nothing of files, shards, recipes or Ray."""
