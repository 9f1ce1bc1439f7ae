"""One join by name: what belongs to an image has its folder and its stem.

An exact stem goes first; else letters may differ in case, and accents in how Unicode composes them,
as names do that came through another file system.
"""

import unicodedata
from collections.abc import Collection, Iterable

IMAGE_SUFFIXES = frozenset(
    ("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif", "tif", "tiff", "avif", "jp2")
)


def fold(name: str) -> str:
    """Return a name without its case and its Unicode form."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def suffix_of(name: str) -> str:
    """Return what follows the last dot, in lower case; nothing of a hidden file's ``.png``."""
    stem, _, suffix = name.rpartition("/")[2].rpartition(".")
    return suffix.lower() if stem else ""


def stem_of(name: str) -> str:
    """Return a name, or a path, without the suffix."""
    return name[: name.rindex(".")] if "." in name.rpartition("/")[2] else name


class Names:
    """Files by their stems."""

    def __init__(self, files: Iterable[tuple[str, str]]) -> None:
        """Take files.

        Args:
            files: a stem and the file, in any order; of equal stems the greatest file counts.
        """
        self._exact: dict[str, str] = {}
        for stem, file in files:
            self._exact[stem] = max(file, self._exact.get(stem, file))
        self._folded: dict[str, list[str]] | None = None  # stems; made when one is missed

    def find(self, stem: str, others: Collection[str]) -> str | None:
        """Return the file of a stem, or the one file whose stem is alike.

        Args:
            stem: of an image.
            others: the stems of all images; a file that has exactly one of these is not alike.
        """
        if stem in self._exact:
            return self._exact[stem]
        if not self._exact:
            return None
        if self._folded is None:
            self._folded = {}
            for one in self._exact:
                self._folded.setdefault(fold(one), []).append(one)
        alike = [one for one in self._folded.get(fold(stem), ()) if one not in others]
        return self._exact[alike[0]] if len(alike) == 1 else None
