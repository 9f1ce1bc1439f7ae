"""Hypothesis without a clock, and an S3 server on loopback."""

import gc
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from catalog import lookup, spill
from tests.random_blip import save_random_blip

# The cores are for the tests beside each other: threads inside one would wait for another's.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for commands
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test asks a network, nor waits for one
os.environ.setdefault("RAY_worker_niceness", "0")  # else every other test goes before Ray's workers

_ON_RAY = ("_on_ray.py", "test_cluster.py")
_RAY = "ray"
_LOCAL = "[--local"  # a parameter: the same test without Ray
_AFTER_RAY = 5  # niceness

# On a busy machine slow is no failure; what CI runs twice must say the same twice.
settings.register_profile("factory", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("factory")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Start an S3 server of this process's own; yield its URL."""
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def s3(s3_server: str) -> Iterator[str]:
    """Yield the URI of an empty bucket.

    Credentials and endpoint go the way they do in production: through the environment.
    """
    import fsspec
    import s3fs

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_server)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        bucket = f"bucket-{uuid.uuid4().hex}"
        fsspec.filesystem("s3").mkdir(bucket)
        yield f"s3://{bucket}"
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def random_blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small, randomly initialised BLIP in the hub's layout."""
    return save_random_blip(tmp_path_factory.mktemp("blip") / "random-blip")


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every table count as one that is too long for memory, and for one array."""
    monkeypatch.setattr(spill, "ROWS_IN_MEMORY", 5)
    monkeypatch.setattr(spill, "_PIECE", 3)
    monkeypatch.setattr(lookup, "_LONG", 0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that take long first, so that small ones fill the end; skip what has no GPU."""
    folders = [_RAY, "training", "pipeline", "detectors", "captioning", "catalog"]
    items.sort(key=lambda item: _place(_group(item.nodeid), folders))
    _skip_without_gpu([item for item in items if item.get_closest_marker("gpu")])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run one process more than there are cores: that which has Ray mostly waits."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give each process whole files, which share fixtures, and all that needs Ray to one."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return Groups(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let what needs Ray, the longest row of tests, go before all that runs beside it."""
    beside_others = "PYTEST_XDIST_WORKER" in os.environ
    if beside_others and _group(item.nodeid) != _RAY and os.nice(0) < _AFTER_RAY:
        os.nice(_AFTER_RAY)


def _group(nodeid: str) -> str:
    file = nodeid.partition("::")[0].removeprefix("tests/")
    return _RAY if file.endswith(_ON_RAY) and _LOCAL not in nodeid else file


def _place(group: str, folders: list[str]) -> int:
    folder = group.partition("/")[0]
    return folders.index(folder) if folder in folders else len(folders)


def _skip_without_gpu(items: list[pytest.Item]) -> None:
    if not items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in items:
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


def pytest_collection_finish() -> None:
    """Spare every later garbage collection the modules that are imported by now."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let them be collected when the process ends."""
    gc.unfreeze()
