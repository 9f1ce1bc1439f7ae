"""Sources that are named with a password or a signature are refused."""

from catalog.source.secrets import without_secrets
from pipeline.errors import UsageError


def check_no_secrets(uri: str) -> None:
    """Check that a source can be named in a dataset that is given away.

    Raises:
        UsageError: the URI holds a password or a signature; the message shows neither.
    """
    shown = without_secrets(uri)
    if shown is not None:
        raise UsageError(
            f"the source {shown} comes with a password or a signature, which would be kept in the "
            "dataset's tables: give it by the environment or the storage's own configuration"
        )
