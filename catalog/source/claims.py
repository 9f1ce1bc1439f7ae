"""Which label is whose: each image claims one by name, and none goes to two images."""

from typing import TypeAlias

from catalog.source.folders import Folder, folders_of
from catalog.source.labels import Labels
from catalog.source.names import Names, fold, stem_of
from catalog.source.texts import printable

_Settled: TypeAlias = tuple[dict[str, str], dict[str, str], set[str]]


class Claims:
    """The labels that images claim.

    Without a root a label lies in its image's folder. With one, its path below the root is the
    image's below the folder that was given, so images of two such folders may claim one label.
    """

    def __init__(self, labels: Labels) -> None:
        """Raises SourceError where there is no such root."""
        self._labels = labels
        self._images: dict[str, tuple[str, bool]] = {}  # path below the given folder; whether kept
        self._found: dict[str, str] = {}
        self.stamps: dict[str, str] = {}
        """Of each label that may be one, by its URI; see `Folder.stamp`."""
        self._tree: Names | None = None
        if labels.root is not None:
            self._tree = Names(
                (stem, folder.uri + folder.files[name])
                for folder in folders_of([labels.root])
                for name, stem in self._stems(folder)
            )

    def add(self, uri: str, relative: str, *, counts: bool) -> None:
        """Take an image; of one that is reached in two ways the longest path below a root."""
        old = self._images.get(uri, ("", False))
        longest = max(old[0], relative, key=lambda path: (path.count("/"), path))
        self._images[uri] = (longest, old[1] or counts)

    def lie_in(self, folder: Folder, stems: set[str]) -> None:
        """Look for labels beside the images of a folder, whose stems are given."""
        if self._tree is not None:
            return
        beside = Names((stem.rpartition("/")[2], name) for name, stem in self._stems(folder))
        for name, end in folder.files.items():
            uri = folder.uri + end
            found = beside.find(stem_of(name), stems) if uri in self._images else None
            if found is not None and found != name:
                self._found[uri] = folder.uri + folder.files[found]

    def settle(self) -> _Settled:
        """Return the label of each image, why others have none, and the URIs of all labels."""
        if self._tree is not None:
            stems = {stem_of(relative) for relative, _ in self._images.values()}
            for uri, (relative, _) in self._images.items():
                found = self._tree.find(stem_of(relative), stems)
                if found is not None and found != uri:
                    self._found[uri] = found
        taken = set(self._found.values())
        claimants: dict[str, list[str]] = {}
        for uri, label in self._found.items():
            if self._images[uri][1] and uri not in taken:
                claimants.setdefault(label, []).append(uri)
        labels, without = {}, {}
        for uri, (relative, counts) in self._images.items():
            if not counts:
                continue
            wanted = self._found.get(uri)
            if wanted is None:
                without[uri] = self._looked_for(uri, relative)
            elif len(rivals := claimants.get(wanted, [])) > 1:
                other = min(one for one in rivals if one != uri)
                without[uri] = f"the label {wanted} is claimed by {other} too"
            else:
                labels[uri] = wanted
        return labels, without, taken

    def _stems(self, folder: Folder) -> list[tuple[str, str]]:
        """Return the names of labels, and their paths without the labels' suffix."""
        end, length = fold(self._labels.suffix), len(self._labels.suffix)
        names = [name for name in folder.files if fold(name).endswith(end)]
        self.stamps |= {folder.uri + folder.files[name]: folder.stamp(name) for name in names}
        return [(name, folder.below + name[: len(name) - length]) for name in names]

    def _looked_for(self, uri: str, relative: str) -> str:
        wanted = f"{stem_of(relative)}{self._labels.suffix}"
        place = self._labels.root
        if place is None:
            place, wanted = uri.rpartition("/")[0], wanted.rpartition("/")[2]
        return printable(f"no label {wanted} in {place}")
