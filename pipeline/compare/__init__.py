"""Runs beside each other: a table, a plot, a grid; and what an ablation is checked for."""
