"""The one HTML file: self-contained, without scripts, and closed to whatever a caption may hold.

Captions, file names and details come from strangers. The template escapes them, and a policy in
the page's head allows nothing but ``data:`` pictures and the one style block by its hash.
"""

import base64
import hashlib
from functools import cache
from importlib import resources

import jinja2
from markupsafe import Markup

from catalog.dataset.dataset import Dataset
from pipeline.report import figures
from pipeline.report.numbers import Numbers, gather
from pipeline.report.sheets import Sheets, draw_sheets


def write_page(dataset: Dataset, *, samples: int) -> str:
    """Return a finished dataset's report as HTML.

    Args:
        dataset: to tell of.
        samples: pictures on a contact sheet; 0 for a report of numbers only.

    Raises:
        DatasetError: the dataset is not finished, or its ledger cannot be read.
    """
    view, rejects = dataset.view(), dataset.rejects()
    numbers = gather(dataset, view.table, rejects)
    sheets = draw_sheets(dataset, view, rejects, numbers, most=samples)
    return render(dataset, numbers, sheets)


def render(dataset: Dataset, numbers: Numbers, sheets: Sheets) -> str:
    """Fill the template."""
    style = _read("style.css")
    return _template().render(
        style=Markup(style),  # ours, and the policy's hash is of exactly these bytes
        policy=_policy(style),
        name=str(dataset.recipe.get("name", "dataset")),
        fingerprint=dataset.fingerprint,
        numbers=numbers,
        sheets=sheets,
    )


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    allowed = ("default-src 'none'", "img-src data:", f"style-src 'sha256-{digest}'")
    return "; ".join((*allowed, "base-uri 'none'", "form-action 'none'"))


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"histogram": figures.histogram, "bar": figures.bar}
    environment.filters |= {"short": figures.short, "bytes": _bytes}
    return environment.from_string(_read("page.html.jinja"))


def _read(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _bytes(count: int) -> str:
    from pipeline.figures import human_bytes

    return human_bytes(count)
