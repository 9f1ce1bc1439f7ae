"""Passwords and signatures never reach a table, nor a message."""

import pytest

from pipeline.errors import UsageError
from pipeline.recipe.recipe import load_recipe
from pipeline.scan.from_dataset import committed_source
from pipeline.scan.scan import describe_inputs, scan


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://me:hunter2@host/images",
        "https://bucket.example/x.tar?X-Amz-Signature=hunter2&X-Amz-Date=1",
        "https://account.example/x.tar?se=2030&sig=hunter2",
        "https://host.example/x.tar?access_token=hunter2",
    ],
)
def test_a_source_with_a_secret_is_refused_and_not_shown(uri: str) -> None:
    for sources, allowed in (([uri], []), (["/nowhere"], [uri])):
        with pytest.raises(UsageError, match="password or a signature") as raised:
            scan(sources, allowed=allowed)
        assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("uri", ["/a:b@c/d?sig=1", "file:///a?token=1", "s3://bucket/what?.jpg"])
def test_a_name_is_no_secret(uri: str) -> None:
    describe_inputs([uri], (), (), None)


def test_a_dataset_with_a_secret_is_refused_and_not_shown() -> None:
    recipe = load_recipe("canny", ["captions.captioner=sidecar"])
    with pytest.raises(UsageError, match="comes with a password") as error:
        committed_source("https://someone:hidden@example.org/d", recipe)
    assert "hidden" not in str(error.value)
