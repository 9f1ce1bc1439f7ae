"""A unit counts exactly once: same bytes are the same unit, other bytes raise or are recorded."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from catalog import storage
from catalog.dataset import commits, tombstones
from catalog.dataset.commits import (
    Attempt,
    commit_unit,
    committed_ids,
    count_mismatches,
    read_commits,
)
from catalog.dataset.compact import compact
from catalog.dataset.dataset import Dataset
from catalog.errors import DatasetError, DeterminismError

MakeAttempt = Callable[..., Attempt]


def shards(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "shards").iterdir())


def test_a_commit_names_its_files_and_hashes(tmp_path: Path, make_attempt: MakeAttempt) -> None:
    attempt = make_attempt(tmp_path / "tmp", [1, 2], index=7)
    commit, outcome = commit_unit(str(tmp_path / "d"), attempt)
    assert outcome == "committed"
    stem = f"000007-{attempt.unit_id[:8]}"
    assert [commit.shard.name, commit.rows.name] == [f"{stem}.tar", f"{stem}.parquet"]
    for file in (commit.shard, commit.rows):
        data = (tmp_path / "d" / "shards" / file.name).read_bytes()
        assert (len(data), storage.sha256_file(str(tmp_path / "d" / "shards" / file.name))) == (
            file.bytes,
            file.sha256,
        )
    assert read_commits(str(tmp_path / "d")) == [commit]
    assert committed_ids(str(tmp_path / "d")) == {attempt.unit_id}
    assert commit.images == 2


def test_the_same_bytes_again_are_discarded(tmp_path: Path, make_attempt: MakeAttempt) -> None:
    out = tmp_path / "d"
    first, _ = commit_unit(str(out), make_attempt(tmp_path / "one", [1, 2]))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again, outcome = commit_unit(str(out), make_attempt(tmp_path / "two", [1, 2]))
    assert (again, outcome) == (first, "same")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_other_bytes_in_an_equal_environment_raise(
    tmp_path: Path, make_attempt: MakeAttempt
) -> None:
    out = str(tmp_path / "d")
    first, _ = commit_unit(out, make_attempt(tmp_path / "one", [1, 2]))
    other = make_attempt(tmp_path / "two", [1, 2], change="other bytes")
    assert other.unit_id == first.unit_id
    with pytest.raises(DeterminismError, match="two attempts in one environment"):
        commit_unit(out, other)
    assert read_commits(out) == [first]


def test_other_bytes_from_another_environment_are_recorded(
    tmp_path: Path, make_attempt: MakeAttempt
) -> None:
    out = str(tmp_path / "d")
    first, _ = commit_unit(out, make_attempt(tmp_path / "one", [1, 2]))
    theirs = {"pillow": "2"}
    other = make_attempt(tmp_path / "two", [1, 2], change="other bytes", environment=theirs)
    kept, outcome = commit_unit(out, other)
    assert (kept, outcome) == (first, "mismatch")
    assert count_mismatches(out) == 1
    (record,) = (tmp_path / "d" / "mismatches").iterdir()
    assert theirs["pillow"] in json.dumps(json.loads(record.read_text()))
    commit_unit(out, other)
    assert count_mismatches(out) == 1  # the same difference twice is one


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"pillow": "1"}, {"pillow": "1", "cpu": "a model"}),
        ({"pillow": "1", "cpu": "unknown"}, {"pillow": "1", "cpu": "unknown"}),
    ],
)
def test_what_an_environment_does_not_tell_raises_no_alarm(
    tmp_path: Path, make_attempt: MakeAttempt, earlier: dict[str, str], later: dict[str, str]
) -> None:
    """A commit of an older version tells less: that its bytes differ is recorded."""
    out = str(tmp_path / "d")
    first, _ = commit_unit(out, make_attempt(tmp_path / "one", [1, 2], environment=earlier))
    other = make_attempt(tmp_path / "two", [1, 2], change="other bytes", environment=later)
    assert commit_unit(out, other) == (first, "mismatch")
    assert read_commits(out) == [first]


@pytest.mark.parametrize("environment", [{"pillow": "1"}, {"pillow": "2"}])
def test_an_attempt_that_loses_the_race_takes_its_own_files_with_it(
    tmp_path: Path,
    make_attempt: MakeAttempt,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
) -> None:
    """The other commits between our look and our own commit, with other bytes or our own."""
    out = tmp_path / "d"
    ours = make_attempt(tmp_path / "ours", [1, 2], change="ours", environment=environment)
    theirs = make_attempt(tmp_path / "theirs", [1, 2])
    create = storage.create_once

    def create_after_them(uri: str, data: bytes) -> None:
        monkeypatch.setattr(storage, "create_once", create)
        assert commit_unit(str(out), theirs)[1] == "committed"
        create(uri, data)

    monkeypatch.setattr(storage, "create_once", create_after_them)
    with suppress(DeterminismError):
        assert commit_unit(str(out), ours)[1] == "mismatch"
    (held,) = read_commits(str(out))
    assert {path.name for path in (out / "shards").iterdir()} == {one.name for one in held.files}


def test_a_late_attempt_leaves_nothing_where_a_takedown_went_by(
    dataset: Dataset, tmp_path: Path, make_attempt: MakeAttempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked before the unit was committed, and publishes after the takedown."""
    tombstones.bury(dataset.uri, dataset.view().keys()[:1])
    compact(dataset)
    before = shards(Path(dataset.uri))
    looks = iter([None])
    read = commits.read_commit
    monkeypatch.setattr(commits, "read_commit", lambda *asked: next(looks, read(*asked)))
    late = make_attempt(tmp_path / "late", [0, 1, 2, 3])
    assert commit_unit(dataset.uri, late)[1] == "same"
    assert shards(Path(dataset.uri)) == before


def test_a_kill_between_publishing_and_committing_is_made_good(
    tmp_path: Path, make_attempt: MakeAttempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "d"

    def killed(uri: str, data: bytes) -> None:
        raise KeyboardInterrupt

    first = make_attempt(tmp_path / "one", [1, 2])
    with monkeypatch.context() as patch:
        patch.setattr(storage, "create_once", killed)
        with pytest.raises(KeyboardInterrupt):
            commit_unit(str(out), first)
    assert committed_ids(str(out)) == set()
    left = shards(out)
    assert len(left) == 2
    _, outcome = commit_unit(str(out), make_attempt(tmp_path / "two", [1, 2]))
    assert outcome == "committed"
    assert shards(out) == left


def test_what_is_taken_over_from_a_killed_attempt_is_new_again(
    tmp_path: Path, make_attempt: MakeAttempt
) -> None:
    """Its age is how `gc` tells what nobody needs."""
    out = tmp_path / "d"
    attempt = make_attempt(tmp_path / "one", [1, 2])
    left = out / "shards" / f"000000-{attempt.unit_id[:8]}.tar"
    left.parent.mkdir(parents=True)
    shutil.copy(attempt.tar, left)
    os.utime(left, (1e9, 1e9))
    assert commit_unit(str(out), attempt)[0].shard.name == left.name
    assert left.stat().st_mtime > 1e9


def test_a_killed_attempt_of_another_environment_does_not_hold_the_name(
    tmp_path: Path, make_attempt: MakeAttempt
) -> None:
    """Its orphaned tar has our final name and other bytes: ours takes a name with its hash."""
    out = tmp_path / "d"
    attempt = make_attempt(tmp_path / "one", [1, 2])
    taken = out / "shards" / f"000000-{attempt.unit_id[:8]}.tar"
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"other bytes")
    commit, outcome = commit_unit(str(out), attempt)
    assert outcome == "committed"
    assert commit.shard.name == f"{taken.stem}-{commit.shard.sha256[:16]}.tar"
    assert storage.sha256_file(str(out / "shards" / commit.shard.name)) == commit.shard.sha256
    assert taken.read_bytes() == b"other bytes"


def test_of_two_racing_attempts_the_later_finds_the_first(
    tmp_path: Path, make_attempt: MakeAttempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other commits between our look and our own commit."""
    out = str(tmp_path / "d")
    ours, theirs = (make_attempt(tmp_path / name, [1, 2]) for name in ("ours", "theirs"))
    create, seen = storage.create_once, []

    def create_after_them(uri: str, data: bytes) -> None:
        if not seen:
            seen.append(uri)
            assert commit_unit(out, theirs)[1] == "committed"
        create(uri, data)

    monkeypatch.setattr(storage, "create_once", create_after_them)
    assert commit_unit(out, ours)[1] == "same"
    assert len(read_commits(out)) == 1


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"unit_id": 1}'])
def test_a_damaged_commit_is_named(tmp_path: Path, make_attempt: MakeAttempt, data: bytes) -> None:
    attempt = make_attempt(tmp_path / "one", [1])
    commit_unit(str(tmp_path / "d"), attempt)
    (tmp_path / "d" / "commits" / f"{attempt.unit_id}.json").write_bytes(data)
    with pytest.raises(DatasetError, match="not a commit"):
        read_commits(str(tmp_path / "d"))


def test_commits_come_in_the_order_of_the_plan(tmp_path: Path, make_attempt: MakeAttempt) -> None:
    out = str(tmp_path / "d")
    for index in (2, 0, 1):
        commit_unit(out, make_attempt(tmp_path / str(index), [index], index=index))
    assert [commit.index for commit in read_commits(out)] == [0, 1, 2]


def test_finalize_waits_for_every_unit_and_repeats_to_the_same_bytes(dataset: Dataset) -> None:
    root = storage.local_path(dataset.uri)
    assert root is not None
    manifest = (root / "manifest.parquet").read_bytes()
    assert not dataset.finalize()
    (root / "manifest.parquet").unlink()
    assert dataset.finalize()
    assert (root / "manifest.parquet").read_bytes() == manifest
    shutil.move(root / "commits" / f"{dataset.unit_ids[1]}.json", root / "elsewhere")
    with pytest.raises(DatasetError, match="1 of 3 units are not committed"):
        dataset.finalize()


def test_an_attempt_of_another_index_or_recipe_is_another_record(
    tmp_path: Path, make_attempt: MakeAttempt
) -> None:
    attempt = make_attempt(tmp_path / "one", [1])
    moved = replace(attempt, unit_id="0" * 32, index=3)
    for one in (attempt, moved):
        assert commit_unit(str(tmp_path / "d"), one)[1] == "committed"
    assert committed_ids(str(tmp_path / "d")) == {attempt.unit_id, "0" * 32}
