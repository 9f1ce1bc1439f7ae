"""URIs that carry a password or a signature: they would be written into the dataset."""

import re
from urllib.parse import parse_qsl, urlsplit

_SIGNED = re.compile(r"sig|token|secret|credential|password|apikey|api_key", re.IGNORECASE)


def without_secrets(uri: str) -> str | None:
    """Return a URI without the password or signature that it carries; None where it has none."""
    if "://" not in uri or uri.startswith("file://"):
        return None
    parts = urlsplit(uri)
    named = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    if parts.password is None and not any(_SIGNED.search(name) for name in named):
        return None
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
