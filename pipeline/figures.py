"""Figures in words."""

from collections.abc import Mapping


def human_bytes(count: int) -> str:
    """Write a number of bytes with a binary unit."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"


def counted(counts: Mapping[str, int]) -> str:
    """Say how many of which kinds, for example ``8 .heic, 1 .zip``."""
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))
