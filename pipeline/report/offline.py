"""HTML pages of one file: self-contained, without scripts, and closed to whatever a text may hold.

Captions, file names and details come from strangers. Templates escape them, and a policy in the
page's head allows nothing but ``data:`` pictures and the one style block by its hash.
"""

import base64
import hashlib
from importlib import resources

import jinja2
from markupsafe import Markup


def environment() -> jinja2.Environment:
    """Return an environment that escapes, and stops at a name that nobody gave."""
    return jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def read(package: str, name: str) -> str:
    """Return a template or style sheet of a package."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def fill(template: jinja2.Template, style: str, **values: object) -> str:
    """Fill a page's template.

    Args:
        template: puts ``policy`` into its head, and ``style`` into its one style block.
        style: CSS, ours.
        values: what else it names.
    """
    return template.render(
        style=Markup(style),  # the policy's hash is of exactly these bytes
        policy=_policy(style),
        **values,
    )


def data_uri(png: bytes) -> str:
    """Return a PNG as a ``data:`` URI."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    allowed = ("default-src 'none'", "img-src data:", f"style-src 'sha256-{digest}'")
    return "; ".join((*allowed, "base-uri 'none'", "form-action 'none'"))
