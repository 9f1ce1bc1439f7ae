"""A run's folder and a dataset to an evaluation."""
