"""WebDataset tars, read in place: members grouped by neighbours, links followed, nothing extracted.

A sample is neighbours of one folder and one name up to its first dot. A text that has no picture
beside it goes to the last picture of that name before it, else to the next one.
"""

import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from posixpath import dirname, normpath
from typing import IO

from catalog import storage
from catalog.errors import ImageError
from catalog.source.names import IMAGE_SUFFIXES, stem_of, suffix_of
from catalog.source.rows import SourceRow, lost, measure, rejected_row, with_said
from catalog.source.texts import LIMITS, Said, printable, read_text

_WANTED = IMAGE_SUFFIXES.union(LIMITS)
_LINKS = 40  # that are followed one after another, as Linux does
_ZEROS = 1 << 20  # bytes read at a time
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def scan_tar(
    uri: str, *, perceptual: bool = False, passed: Counter[str] | None = None
) -> Iterator[SourceRow]:
    """Yield a tar's images, also those of archives that were put behind its end.

    Args:
        uri: of the tar; an uncompressed one.
        perceptual: decode each image for its perceptual hash as well.
        passed: counts members that are neither an image nor beside one, by kind.
    """
    passed = Counter() if passed is None else passed
    with storage.open_binary(uri) as file:
        at: int | None = 0
        while at is not None:
            archive = _Archive(uri, perceptual, passed)
            broken: SourceRow | None = None
            file.seek(at)
            try:
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    try:
                        archive.read(tar)
                        at = _next_archive(file, tar.offset, passed)
                    finally:
                        archive.settle()
            except tarfile.TarError as error:
                told = _explain(file, error) if at == 0 else error
                broken = replace(lost(SourceRow(uri=uri), told), status="failed:TarError")
                at = None
            yield from archive.rows()
            if broken is not None:
                yield broken


def _explain(file: IO[bytes], error: tarfile.TarError) -> tarfile.TarError:
    file.seek(0)
    start = file.read(8)
    for magic, name in _COMPRESSED.items():
        if start.startswith(magic):
            return tarfile.ReadError(
                f"it is compressed with {name}, and so cannot be read in place: unpack it to a .tar"
            )
    return error


def _next_archive(file: IO[bytes], offset: int, passed: Counter[str]) -> int | None:
    """Return where another archive begins behind the end at `offset`, if there is one.

    The end is a record of zeros, or that of the file, as tars that were put together lack the mark.
    tarfile passes off a broken header as the end.
    """
    file.seek(offset)
    if any(file.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"no tar header at byte {offset}; members behind it are lost")
    at = file.tell()
    while chunk := file.read(_ZEROS):
        if (zeros := len(chunk) - len(chunk.lstrip(b"\0"))) < len(chunk):
            at += zeros - zeros % tarfile.BLOCKSIZE
            file.seek(at)
            try:
                tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
            except tarfile.HeaderError:
                passed["ends of tars that hold no members"] += 1
                return None
            return at
        at += len(chunk)
    return None


@dataclass(slots=True, kw_only=True)
class _Member:
    """A member that is an image, a text, or a link to one; `row` or `said` once it is read."""

    info: tarfile.TarInfo
    folder: str
    stem: str
    end: str
    row: SourceRow | None = None
    said: Said | None = None

    @property
    def key(self) -> tuple[str, str]:
        return self.folder, self.stem

    @property
    def long_stem(self) -> str:
        """The name up to its last dot."""
        return stem_of(self.info.name).rpartition("/")[2]


@dataclass(slots=True)
class _Group:
    """Neighbours of one key."""

    key: tuple[str, str]
    ends: set[str] = field(default_factory=set)
    rows: list[SourceRow] = field(default_factory=list)
    said: dict[str, Said] = field(default_factory=dict)


class _Archive:
    """The members of one archive, in the order in which they stand."""

    def __init__(self, uri: str, perceptual: bool, passed: Counter[str]) -> None:
        self._uri, self._perceptual, self._passed = uri, perceptual, passed
        self._members: list[_Member] = []
        self._tar: tarfile.TarFile | None = None

    def read(self, tar: tarfile.TarFile) -> None:
        """Go through the members, and read those whose names say at once what they are."""
        self._tar = tar
        for info in tar:
            if info.isdir():
                continue
            folder, _, name = info.name.rpartition("/")
            stem, _, end = name.partition(".")
            member = _Member(info=info, folder=folder, stem=stem, end=end.lower())
            if not stem or member.end.rpartition(".")[2] not in _WANTED:
                self._pass(member)
            elif not info.isreg() and not info.issym() and not info.islnk():
                self._passed["devices and pipes in tars"] += 1
            else:
                if info.isreg() and "." not in end:
                    self._open(member, info)
                self._members.append(member)

    def settle(self) -> None:
        """Follow the links, and read the names with dots, now that all names are known."""
        named: dict[str, list[tarfile.TarInfo]] = {}
        for info in self._tar.getmembers() if self._tar else ():
            named.setdefault(normpath(info.name), []).append(info)
        pictures = {one.key for one in self._members if one.end in IMAGE_SUFFIXES}
        dotted: dict[tuple[str, str], set[str]] = {}  # stems of pictures, by key
        for one in self._members:
            if "." in one.end and suffix_of(one.end) in IMAGE_SUFFIXES:
                dotted.setdefault(one.key, set()).add(one.long_stem)
        kept = []
        for member in self._members:
            only = dotted.get(member.key, set())
            if "." in member.end:
                if member.key in pictures:  # a map of that picture, or another text
                    self._pass(member)
                    continue
                member.stem, member.end = member.long_stem, suffix_of(member.end)
            elif member.end in LIMITS and member.key not in pictures and len(only) == 1:
                own = normpath(f"{member.folder}/{min(only)}.{member.end}".lstrip("/"))
                if own not in named:
                    member.stem = min(only)  # 0001.txt of 0001.image.jpg
            if member.row is None and member.said is None:
                target = _follow(member.info, named)
                if target is None:
                    self._passed["links in tars that lead to no member"] += 1
                    continue
                self._open(member, target)
            kept.append(member)
        self._members = kept

    def rows(self) -> Iterator[SourceRow]:
        """Yield the images with the texts beside them."""
        groups = self._groups()
        waiting: dict[tuple[str, str], dict[str, Said]] = {}
        last: dict[tuple[str, str], _Group] = {}
        for group in groups:
            if group.rows:
                group.said = waiting.pop(group.key, {}) | group.said
                last[group.key] = group
            elif group.key in last:
                last[group.key].said |= group.said
            else:
                waiting.setdefault(group.key, {}).update(group.said)
        for group in groups:
            for row in group.rows:
                yield with_said(row, group.said)
        for texts in waiting.values():
            for kind in texts:
                self._passed[f".{kind} in tars"] += 1

    def _groups(self) -> list[_Group]:
        groups: list[_Group] = []
        for member in self._members:
            if not groups or groups[-1].key != member.key or member.end in groups[-1].ends:
                groups.append(_Group(member.key))
            groups[-1].ends.add(member.end)
            if member.row is not None:
                groups[-1].rows.append(member.row)
            elif member.said is not None:
                groups[-1].said[member.end] = member.said
        return groups

    def _open(self, member: _Member, info: tarfile.TarInfo) -> None:
        """Read a member's bytes; `info` is where they are."""
        assert self._tar is not None
        content = self._tar.extractfile(info)
        assert content is not None
        kind = member.end.rpartition(".")[2]
        if kind in LIMITS:
            member.said = read_text(kind, content.read(LIMITS[kind] + 1))
            return
        row = SourceRow(uri=self._uri, offset=info.offset_data, length=info.size)
        if info.issparse():
            error = ImageError("sparse_member", "a member with holes; pack it without tar -S")
            member.row = rejected_row(row, error)
        else:
            member.row = measure(row, content, perceptual=self._perceptual)

    def _pass(self, member: _Member) -> None:
        suffix = f".{member.end}" if member.end else "no suffix"
        self._passed[printable(f"{suffix} in tars")] += 1


def _follow(
    info: tarfile.TarInfo, named: dict[str, list[tarfile.TarInfo]]
) -> tarfile.TarInfo | None:
    """Return the regular member that a link leads to, or None."""
    for _ in range(_LINKS):
        if info.isreg():
            return info
        if info.issym():
            name = normpath(f"{dirname(info.name)}/{info.linkname}".lstrip("/"))
            found = named.get(name, [])
        elif info.islnk():
            found = [
                one for one in named.get(normpath(info.linkname), []) if one.offset < info.offset
            ]
        else:
            return None
        if not found:
            return None
        info = found[-1]
    return None
