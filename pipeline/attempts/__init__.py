"""Tries at a unit: their environment, their marks, what became of them, whom they accuse."""
