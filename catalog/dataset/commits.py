"""The commit protocol: a unit counts exactly when ``commits/<unit_id>.json`` stands, whole.

An attempt writes its tar and its rows under a temporary name and hashes them; `commit_unit` then
gives them their final names and, last, creates the commit create-once. No step replaces a file, so
whatever an attempt finds is whole, and killing it anywhere leaves either no commit or a good one.
An attempt that finds another's commit at the end deletes the files that it published itself; those
of one that was killed are swept when all units are committed (`catalog.dataset.orphans`).
Only a compaction replaces a commit (`supersede`), by one that names files beside the old ones.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from catalog import storage
from catalog.errors import DatasetError, DeterminismError
from catalog.sample import DROPPED, REMOVED, canonical_json, sha256_hex

COMMITS = "commits"
SHARDS = "shards"
MISMATCHES = "mismatches"
HELD = ".held"
"""Suffix of a unit's tar of rejected images' maps; not .tar, so that *.tar names samples alone."""

UNIT_FILE = re.compile(r"(\d{6,})-([0-9a-f]{8})(-[0-9a-f]{16})?\.(tar|held|parquet)")
"""What a unit's files are named, by its place in the plan and the start of its id; what is named
otherwise is somebody's."""

UNKNOWN = "unknown"
"""How a value of an environment begins that nobody can tell: it equals none, not even itself."""

_READERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A committed file: its name below ``shards/``, its size in bytes and its hex sha256."""

    name: str
    bytes: int
    sha256: str

    def fault(self, uri: str, *, quick: bool = False) -> str | None:
        """Return what is wrong with the file that lies at `uri`; None where it is the committed.

        Args:
            uri: where it should lie.
            quick: look at its size alone, not at its bytes.
        """
        try:
            if quick:
                size = storage.size(uri)
                return None if size == self.bytes else f"{size:,} bytes, committed {self.bytes:,}"
            found = storage.sha256_file(uri)
        except OSError as error:
            return f"{type(error).__name__}: {error}"
        return None if found == self.sha256 else f"sha256 {found}, committed {self.sha256}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What is true of a unit, once and for all.

    Attributes:
        unit_id: 32 hex characters, see `catalog.source.ranking.unit_id`.
        index: position of the unit in the plan.
        fingerprint: the recipe's.
        shard: the tar.
        rows: the parquet with one row for each image of the unit, kept or not.
        counts: images by status.
        environment: what besides the recipe could move a bit: library versions, CPU, device,
            threads; of old commits only some of it.
        held: a tar of the maps of rejected images, which another threshold may let through.
    """

    unit_id: str
    index: int
    fingerprint: str
    shard: StoredFile
    rows: StoredFile
    counts: dict[str, int]
    environment: dict[str, str]
    held: StoredFile | None = None

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """All files of the unit below ``shards/``."""
        return (self.shard, self.rows, *((self.held,) if self.held else ()))

    @property
    def images(self) -> int:
        """Images of the unit, kept or not."""
        return sum(self.counts.values())

    def to_json(self) -> bytes:
        """Return the one spelling of this commit."""
        return canonical_json(asdict(self)) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> "Commit":
        """Read a commit; raises DatasetError where `data` is none."""
        try:
            raw: dict[str, Any] = json.loads(data)
            raw |= {name: StoredFile(**raw[name]) for name in ("shard", "rows")}
            raw["held"] = StoredFile(**raw["held"]) if raw["held"] else None
            return cls(**raw)
        except (ValueError, TypeError, KeyError) as error:
            raise DatasetError(f"not a commit: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A finished, uncommitted unit: its files under temporary local names."""

    unit_id: str
    index: int
    fingerprint: str
    tar: Path
    rows: Path
    counts: dict[str, int]
    environment: dict[str, str]
    held: Path | None = None


Outcome = Literal["committed", "same", "mismatch"]


def commit_unit(dataset: str, attempt: Attempt) -> tuple[Commit, Outcome]:
    """Commit an attempt, or find that the unit is committed already.

    Returns:
        The commit that holds, and ``committed`` (it is this attempt's), ``same`` (an earlier one
        with the
        same bytes) or ``mismatch`` (an earlier one, made in another environment, with other bytes:
        it stays and the difference is recorded under ``mismatches/``).

    Raises:
        DeterminismError: the earlier commit was made in an equal environment, and its bytes differ.
    """
    existing = read_commit(dataset, attempt.unit_id)
    if existing is not None:
        return existing, _compare(dataset, existing, _describe(attempt))
    commit, ours = _publish_all(dataset, attempt)
    try:
        storage.create_once(_commit_uri(dataset, attempt.unit_id), commit.to_json())
    except FileExistsError:
        existing = read_commit(dataset, attempt.unit_id)
        assert existing is not None  # commits are never removed
        _delete(dataset, ours - {file.name for file in existing.files})
        return existing, _compare(dataset, existing, commit)
    return commit, "committed"


def supersede(dataset: str, attempt: Attempt) -> Commit:
    """Replace the commit of a unit that was rewritten without some samples.

    See `catalog.dataset.compact`.
    The new files lie beside the old ones, under names by their hashes.
    """
    commit, _ = _publish_all(dataset, attempt, plain=False)
    storage.write_atomic(_commit_uri(dataset, attempt.unit_id), commit.to_json())
    return commit


def read_commit(dataset: str, unit_id: str) -> Commit | None:
    """Return the commit of a unit, or None where it has none."""
    try:
        return Commit.from_json(storage.read_bytes(_commit_uri(dataset, unit_id)))
    except FileNotFoundError:
        return None


def committed_ids(dataset: str) -> set[str]:
    """Return the ids of the committed units: one listing, no file is opened."""
    names = storage.list_names(storage.join(dataset, COMMITS))
    return {
        name.removesuffix(".json") for name in names if name.endswith(".json") and name[0] != "."
    }


def read_commits(dataset: str) -> list[Commit]:
    """Return all commits in the order of the plan."""
    uris = [_commit_uri(dataset, unit) for unit in sorted(committed_ids(dataset))]
    with ThreadPoolExecutor(_READERS) as pool:
        commits = list(pool.map(lambda uri: Commit.from_json(storage.read_bytes(uri)), uris))
    return sorted(commits, key=lambda commit: commit.index)


def is_same_environment(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Say whether two environments are known to be equal; what one does not tell may differ."""
    return one == other and not any(value.startswith(UNKNOWN) for value in one.values())


def count_mismatches(dataset: str) -> int:
    """Return how many attempts in other environments gave other bytes."""
    return len(storage.list_names(storage.join(dataset, MISMATCHES)))


def _describe(
    attempt: Attempt,
    *,
    shard: StoredFile | None = None,
    rows: StoredFile | None = None,
    held: StoredFile | None = None,
) -> Commit:
    return Commit(
        unit_id=attempt.unit_id,
        index=attempt.index,
        fingerprint=attempt.fingerprint,
        shard=shard or _measure(attempt.tar),
        rows=rows or _measure(attempt.rows),
        counts=attempt.counts,
        environment=attempt.environment,
        held=held or (_measure(attempt.held) if attempt.held else None),
    )


def _measure(path: Path) -> StoredFile:
    return StoredFile(
        name=path.name, bytes=path.stat().st_size, sha256=storage.sha256_file(os.fspath(path))
    )


def _publish_all(
    dataset: str, attempt: Attempt, *, plain: bool = True
) -> tuple[Commit, frozenset[str]]:
    """Publish an attempt's files; return its commit, and the names that did not stand before."""
    stem = f"{attempt.index:06d}-{attempt.unit_id[:8]}"
    paths = {".tar": attempt.tar, ".parquet": attempt.rows}
    if attempt.held is not None:
        paths[HELD] = attempt.held
    made = {end: _publish(dataset, path, stem, end, plain=plain) for end, path in paths.items()}
    files = {end: file for end, (file, _) in made.items()}
    commit = _describe(attempt, shard=files[".tar"], rows=files[".parquet"], held=files.get(HELD))
    return commit, frozenset(file.name for file, is_new in made.values() if is_new)


def _delete(dataset: str, names: Iterable[str]) -> None:
    """Delete files that plain readers of ``shards/`` would take for samples."""
    for name in sorted(names):
        storage.remove(storage.join(dataset, SHARDS, name))


def _publish(
    dataset: str, path: Path, stem: str, suffix: str, *, plain: bool
) -> tuple[StoredFile, bool]:
    """Give the file its final name; where it may not be the plain one, with our hash in it.

    Returns:
        The file, and whether it was written: an equal one may stand there already.
    """
    measured = _measure(path)
    named_by_hash = f"{stem}-{measured.sha256[:16]}{suffix}"
    for name in (stem + suffix, named_by_hash) if plain else (named_by_hash,):
        uri = storage.join(dataset, SHARDS, name)
        stored = StoredFile(name=name, bytes=measured.bytes, sha256=measured.sha256)
        try:
            storage.publish(path, uri)
            return stored, True
        except FileExistsError:
            if storage.sha256_file(uri) == measured.sha256:
                storage.touch(uri)  # its age tells `gc` that it is needed
                return stored, False
    raise DatasetError(f"{stem}{suffix}: a file named by its hash holds other bytes; run verify")


def _compare(dataset: str, existing: Commit, ours: Commit) -> Outcome:
    if {REMOVED, DROPPED} & {*existing.counts, *ours.counts}:
        return "same"  # written after a takedown or by a compaction; bytes differ on purpose
    hashes = [(commit.shard.sha256, commit.rows.sha256) for commit in (existing, ours)]
    if hashes[0] == hashes[1]:
        return "same"
    if is_same_environment(existing.environment, ours.environment):
        raise DeterminismError(
            f"unit {ours.index} ({ours.unit_id}): two attempts in one environment gave shards "
            f"{hashes[0][0][:12]} and {hashes[1][0][:12]}; the first commit stays. A detector or "
            "captioner draws random numbers from elsewhere than its generator, or a library is "
            "not deterministic."
        )
    record = ours.to_json()
    name = f"{ours.unit_id}.{sha256_hex(record)[:16]}.json"
    storage.write_atomic(storage.join(dataset, MISMATCHES, name), record)
    return "mismatch"


def _commit_uri(dataset: str, unit_id: str) -> str:
    return storage.join(dataset, COMMITS, f"{unit_id}.json")
