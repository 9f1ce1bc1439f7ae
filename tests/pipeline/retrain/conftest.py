"""A folder on each kind of storage."""

import uuid

import pytest


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URI of an empty folder, on a local disk and on object storage."""
    if request.param == "local":
        return str(tmp_path_factory.mktemp("folder"))
    return f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}"
