"""The report is one closed file: whatever a caption or a file is named, it is only shown."""

import io
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from catalog import tables
from catalog.dataset.dataset import Dataset
from catalog.errors import DatasetError
from pipeline.build.build import BuildResult
from pipeline.report.numbers import NEAR_DUPLICATE, gather
from pipeline.report.page import render, write_page
from pipeline.report.sheets import draw_sheets
from tests.browser import NAMES, Browser, find_chromium

SCRIPT = "document.title='ran'"
HOSTILE = [
    f"<script>{SCRIPT}</script>",
    f'"><img src=x onerror="{SCRIPT}">',
    f"</style></title></svg><svg onload={SCRIPT}>",
    f'<a href="javascript:{SCRIPT}">{{{{ 7 * 7 }}}} {{% raw %}}</a>',
    "'\"&<>" + "w" * 400,
    "\u202eright to left\u2066",
]


@pytest.fixture(scope="module")
def hostile(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with such captions, and rejected ones with such names."""
    folder = tmp_path_factory.mktemp("hostile") / "images"
    shutil.copytree(pictures, folder)
    images = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    for path, caption in zip(images, HOSTILE, strict=False):
        path.with_suffix(".txt").write_text(caption)
    for number, name in enumerate(("<script>", '"><img onerror=alert(1)>', "</style>")):
        safe = name.replace("/", "\u2215")
        (folder / f"{safe}{number}.jpg").write_bytes(b"no picture" if number else b"")
        shutil.copyfile(images[0], folder / f"z{safe}.png")
    return folder


@pytest.fixture
def dataset(hostile: Path, make: Callable[..., BuildResult], tmp_path: Path) -> Dataset:
    make(hostile, tmp_path / "d")
    made = Dataset.open(str(tmp_path / "d"))
    made.write_subset(4, policy="top", seed=0)
    return made


class Elements(HTMLParser):
    """Collects a page's elements and attributes as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_captions_and_names_are_text_and_nothing_else(dataset: Dataset) -> None:
    found = Elements(write_page(dataset, samples=12))
    assert "script" not in found.tags
    assert found.tags.count("style") == 1
    assert not {"iframe", "object", "embed", "link", "form", "base"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on") or name == "style"]
    links = [value for name, value in found.attributes if name in ("src", "href")]
    assert links
    assert all(link and link.startswith(("#", "data:image/webp;base64,")) for link in links)
    for caption in HOSTILE:
        assert caption[:300] in found.text
    assert "<script>0.jpg" in found.text


def test_the_same_dataset_gives_the_same_page(dataset: Dataset) -> None:
    assert write_page(dataset, samples=3) == write_page(dataset, samples=3)


def test_without_pictures_every_count_is_still_there(dataset: Dataset) -> None:
    found = Elements(write_page(dataset, samples=0))
    assert "img" not in found.tags
    assert "rejected:duplicate" in found.text
    assert "Commonest words" in found.text


def test_what_cannot_be_read_is_shown_as_no_picture(dataset: Dataset, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "d" / "shards")
    assert "no picture" in write_page(dataset, samples=3)


def test_near_duplicates_have_a_section_only_where_there_are_some(
    dataset: Dataset, hostile: Path
) -> None:
    assert 'id="near"' not in write_page(dataset, samples=2)
    view = dataset.view()
    alike = {
        "uri": (hostile / "even" / "00.png").as_uri(),
        "sha256": "0" * 64,
        "status": NEAR_DUPLICATE,
        "against": str(view.table["sha256"][0]),
    }
    rejects = pa.concat_tables(
        [dataset.rejects(), pa.Table.from_pylist([alike] * 3, schema=tables.REJECTS)]
    )
    numbers = gather(dataset, view.table, rejects)
    sheets = draw_sheets(dataset, view, rejects, numbers, most=2)
    (group,) = sheets.groups
    assert [picture.uri is not None for picture in group.pictures] == [True] * 4
    found = Elements(render(dataset, numbers, sheets))
    assert "3 images look like one of 1 that were kept" in found.text


def test_an_unfinished_dataset_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "d" / "manifest.parquet").unlink()
    with pytest.raises(DatasetError, match="not finished"):
        write_page(dataset, samples=3)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if find_chromium() is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)} is installed")
    with Browser() as opened:
        yield opened


@pytest.fixture
def page(dataset: Dataset, tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    path.write_text(write_page(dataset, samples=12), encoding="utf-8")
    return path


def test_no_script_runs_in_a_browser(browser: Browser, page: Path) -> None:
    assert browser.open(page, width=1200) < 2
    assert browser.evaluate("document.title") == "canny: dataset report"
    assert browser.evaluate("document.scripts.length") == 0
    assert browser.evaluate("[...document.images].every(one => one.naturalWidth > 0)") is True


def test_the_policy_stops_a_script_that_escaping_let_through(
    browser: Browser, page: Path, tmp_path: Path
) -> None:
    """The second wall: were a caption ever not escaped, its script still would not run."""
    broken = tmp_path / "broken.html"
    text = page.read_text(encoding="utf-8")
    broken.write_text(text.replace("<main>", f"<main><script>{SCRIPT}</script>{HOSTILE[1]}", 1))
    browser.open(broken, width=1200)
    assert browser.evaluate("document.scripts.length") == 1
    assert browser.evaluate("document.title") == "canny: dataset report"


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_a_page_is_never_wider_than_its_window(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width)
    browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("window.innerWidth") == width


@pytest.mark.parametrize(("dark", "low", "high"), [(False, 200, 255), (True, 0, 80)])
def test_light_and_dark_follow_the_reader(
    browser: Browser, page: Path, dark: bool, low: float, high: float
) -> None:
    browser.open(page, width=800, dark=dark)
    shown = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("L"))
    assert low <= np.median(shown) <= high
    assert shown.std() > 5  # something stands on it


def test_a_page_shows_no_file_that_the_dataset_was_not_made_of(
    make: Callable[..., BuildResult], pictures: Path, tmp_path: Path
) -> None:
    """A dataset that someone gives away may name any file of the reader's machine."""
    images = tmp_path / "images"
    shutil.copytree(pictures, images)
    twin = next(path for path in sorted(images.rglob("*")) if path.suffix == ".png")
    shutil.copyfile(twin, images / "z_twin.png")
    private = tmp_path / "private.png"
    shutil.copyfile(twin, private)
    make(images, tmp_path / "d")
    dataset = Dataset.open(str(tmp_path / "d"))
    rejects, view = dataset.rejects(), dataset.view()
    assert "rejected:duplicate" in rejects["status"].to_pylist()
    numbers = gather(dataset, view.table, rejects)

    def shown(table: pa.Table, **options: bool) -> list[str | None]:
        sheets = draw_sheets(dataset, view, table, numbers, most=4, **options)
        (card,) = sheets.rejects["rejected:duplicate"]
        return [picture.uri for picture in card.pictures]

    assert None not in shown(rejects)
    assert set(shown(rejects, sources=False)) == {None}
    at = rejects.schema.get_field_index("uri")
    inside = images.as_uri()
    for named in (private.as_uri(), f"{inside}/../private.png", f"{inside}/%2e%2e/private.png"):
        forged = rejects.set_column(at, "uri", pa.array([named] * rejects.num_rows))
        assert set(shown(forged)) == {None}
