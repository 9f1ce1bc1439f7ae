"""One schedule at a time, whatever the clocks say and whoever is killed."""

import multiprocessing
import os
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path

import pytest

from catalog import storage
from pipeline.errors import BusyError, LeaseLost
from pipeline.retrain import numbered
from pipeline.retrain.lease import LEASE, hold

SPAWN = multiprocessing.get_context("spawn")

_LIMIT = 60.0  # seconds


def test_a_held_folder_is_refused_with_who_and_since_when(folder: str) -> None:
    with hold(folder, "nightly") as lease:
        assert lease.number == 1
        with pytest.raises(BusyError, match=r"nightly on .* since 20\d\d-.*sign of life"):
            hold(folder, "another").__enter__()
        lease.check()


def test_numbers_grow_and_an_ended_lease_is_free_at_once(folder: str) -> None:
    def fail() -> None:
        with hold(folder, "nightly"):
            raise RuntimeError("a stage failed")

    with pytest.raises(RuntimeError, match="a stage failed"):
        fail()
    with hold(folder, "nightly") as lease:
        assert lease.number == 2
    with hold(folder, "nightly") as lease:
        assert lease.number == 3
    assert not [name for name in storage.list_names(f"{folder}/{LEASE}") if "alive" in name]


def test_who_was_taken_for_dead_finds_out(folder: str) -> None:
    with hold(folder, "slow", lapses_after=0) as slow, hold(folder, "quick") as quick:
        assert quick.number == slow.number + 1
        with pytest.raises(LeaseLost, match=r"quick on .* with lease 2, as lease 1"):
            slow.check()
        quick.check()
    with pytest.raises(LeaseLost, match="with lease 2"):  # also when both have ended
        slow.check()


def test_a_lease_whose_folder_went_is_lost(tmp_path: Path) -> None:
    with hold(str(tmp_path), "nightly") as lease:
        (tmp_path / LEASE / "000001.json").unlink()
        with pytest.raises(LeaseLost, match="is gone"):
            lease.check()


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clock_of_a_machine_decides_nothing(
    folder: str, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = time.time
    with hold(folder, "nightly"):
        monkeypatch.setattr(time, "time", lambda: right() + 3600 * hours)
        with pytest.raises(BusyError):
            hold(folder, "another").__enter__()
    with hold(folder, "lapses", lapses_after=0), hold(folder, "another") as lease:
        assert lease.number == 3


def test_a_lease_lapses_by_the_last_sign_of_life(tmp_path: Path) -> None:
    folder, quiet = str(tmp_path), time.time() - 590
    with hold(folder, "nightly"):
        os.utime(tmp_path / LEASE / "000001.json", (0, 0))  # taken long ago
        os.utime(tmp_path / LEASE / "000001.alive", (quiet, quiet))
        with pytest.raises(BusyError, match=r"since 1970-.* 59\d s ago.*600 s after"):
            hold(folder, "another").__enter__()
        os.utime(tmp_path / LEASE / "000001.alive", (quiet - 20, quiet - 20))
        with hold(folder, "another") as lease:
            assert lease.number == 2


def test_a_holder_gives_signs_of_life(folder: str) -> None:
    alive = numbered.path(f"{folder}/{LEASE}", 1, "alive")
    with hold(folder, "nightly", renew_each=0.01):
        storage.remove(alive)
        end = time.monotonic() + _LIMIT
        while not storage.exists(alive):
            assert time.monotonic() < end


def test_a_refused_creation_that_was_ours_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a lost answer: the storage did it, and refuses the second try."""
    create_once = storage.create_once

    def answer_lost(uri: str, data: bytes) -> None:
        create_once(uri, data)
        create_once(uri, data)

    monkeypatch.setattr(storage, "create_once", answer_lost)
    with hold(str(tmp_path), "nightly") as lease:
        lease.check()


def race(folder: str, gate: Barrier, told: Connection, end: Event) -> None:
    gate.wait()
    try:
        with hold(folder, f"process {os.getpid()}"):
            told.send("held")
            end.wait()
    except BusyError as error:
        told.send(str(error))


def test_of_two_processes_that_start_at_once_one_holds(folder: str) -> None:
    gate, end = SPAWN.Barrier(2), SPAWN.Event()
    ours, processes = [], []
    for _ in range(2):
        mine, theirs = SPAWN.Pipe()
        processes.append(SPAWN.Process(target=race, args=(folder, gate, theirs, end), daemon=True))
        processes[-1].start()
        ours.append(mine)
    assert all(one.poll(_LIMIT) for one in ours)
    words = sorted((one.recv() for one in ours), key=len)
    end.set()
    for process in processes:
        process.join()
    assert words[0] == "held"
    assert "process" in words[1]
    assert numbered.numbers(f"{folder}/{LEASE}") == [1]


def test_of_many_threads_one_holds(folder: str) -> None:
    gate, done = threading.Barrier(8), threading.Barrier(9)
    held: list[int] = []

    def take() -> None:
        gate.wait()
        try:
            with hold(folder, "a thread") as lease:
                held.append(lease.number)
                done.wait(_LIMIT)
        except BusyError:
            done.wait(_LIMIT)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    done.wait(_LIMIT)
    for thread in threads:
        thread.join()
    assert held == [1]


def keep(folder: str, told: Connection) -> None:
    with hold(folder, "nightly", renew_each=0.05, lapses_after=1):
        told.send("held")
        threading.Event().wait()


def test_the_lease_of_a_killed_holder_lapses(folder: str) -> None:
    mine, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=keep, args=(folder, theirs), daemon=True)
    process.start()
    assert mine.poll(_LIMIT)
    process.kill()
    process.join()
    end = time.monotonic() + _LIMIT
    while True:
        try:
            with hold(folder, "the next") as lease:
                assert lease.number == 2
            return
        except BusyError:
            assert time.monotonic() < end
            time.sleep(0.1)
