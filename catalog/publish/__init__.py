"""A dataset for others: its card, Croissant, plain tars, sheets."""
