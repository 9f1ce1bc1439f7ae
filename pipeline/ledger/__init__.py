"""Questions to a finished dataset, and what can leave its folder."""
