"""Rows of a dataset to batches, in an order that is one integer."""
