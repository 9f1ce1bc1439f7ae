"""URIs that carry a password or a signature: they would be written into the dataset."""

import re
from urllib.parse import parse_qsl, urlsplit

from pipeline.errors import UsageError

_SIGNED = re.compile(r"sig|token|secret|credential|password|apikey|api_key", re.IGNORECASE)


def check_no_secrets(uri: str) -> None:
    """Check that a source can be named in a dataset that is given away.

    Raises:
        UsageError: the URI holds a password or a signature; the message shows neither.
    """
    if "://" not in uri or uri.startswith("file://"):
        return
    parts = urlsplit(uri)
    named = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    if parts.password is None and not any(_SIGNED.search(name) for name in named):
        return
    shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
    raise UsageError(
        f"the source {shown} comes with a password or a signature, which would be kept in the "
        "dataset's tables: give it by the environment or the storage's own configuration"
    )
