"""The report's one HTML file."""

from functools import cache

import jinja2

from catalog.dataset.dataset import Dataset
from pipeline.report import figures, offline
from pipeline.report.numbers import Numbers, gather
from pipeline.report.sheets import Sheets, draw_sheets


def write_page(dataset: Dataset, *, samples: int, sources: bool = True) -> str:
    """Return a finished dataset's report as HTML.

    Args:
        dataset: to tell of.
        samples: pictures on a contact sheet; 0 for a report of numbers only.
        sources: show rejected images, which are read from the sources that the dataset names.

    Raises:
        DatasetError: the dataset is not finished, or its ledger cannot be read.
    """
    view, rejects = dataset.view(), dataset.rejects()
    numbers = gather(dataset, view.table, rejects)
    sheets = draw_sheets(dataset, view, rejects, numbers, most=samples, sources=sources)
    return render(dataset, numbers, sheets)


def render(dataset: Dataset, numbers: Numbers, sheets: Sheets) -> str:
    """Fill the template."""
    return offline.fill(
        _template(),
        offline.read(__package__, "style.css"),
        name=str(dataset.recipe.get("name", "dataset")),
        fingerprint=dataset.fingerprint,
        numbers=numbers,
        sheets=sheets,
    )


@cache
def _template() -> jinja2.Template:
    environment = offline.environment()
    environment.globals |= {"histogram": figures.histogram, "bar": figures.bar}
    environment.filters |= {"short": figures.short, "bytes": _bytes}
    return environment.from_string(offline.read(__package__, "page.html.jinja"))


def _bytes(count: int) -> str:
    from pipeline.figures import human_bytes

    return human_bytes(count)
