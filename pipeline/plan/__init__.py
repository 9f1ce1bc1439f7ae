"""The table of a scan to the frozen plan, and what it will cost."""
