"""Floor 1: pictures to captions; knows nothing of files, shards, recipes or Ray."""
