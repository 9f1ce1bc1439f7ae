"""Hypothesis without a clock, and an S3 server on loopback."""

import gc
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.random_blip import save_random_blip

_TESTS = Path(__file__).parent

# The cores are for the tests beside each other: threads inside one would wait for another's.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, and for commands
# On a busy machine slow is no failure; what CI runs twice must say the same twice.
settings.register_profile("factory", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("factory")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Start an S3 server of this module's own; yield the URI of an empty bucket.

    Credentials and endpoint go the way they do in production: through the environment.
    """
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    import fsspec
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        bucket = f"bucket-{uuid.uuid4().hex}"  # all servers of one process share their contents
        fsspec.filesystem("s3").mkdir(bucket)
        yield f"s3://{bucket}"
        s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(scope="session")
def random_blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small, randomly initialised BLIP in the hub's layout."""
    return save_random_blip(tmp_path_factory.mktemp("blip") / "random-blip")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for the processes that run them, long groups first; skip what has no GPU."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:  # a file shares its fixtures
            item.add_marker(pytest.mark.xdist_group(item.path.relative_to(_TESTS).as_posix()))
    items.sort(key=lambda item: _place(item.get_closest_marker("xdist_group").args[0]))
    _skip_without_gpu([item for item in items if item.get_closest_marker("gpu")])


def _place(group: str) -> int:
    """Return where a group stands: what takes long begins first, and small ones fill the end."""
    folders = ("ray", "training", "pipeline", "detectors", "captioning", "catalog")
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
