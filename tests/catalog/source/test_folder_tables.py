"""metadata.jsonl and metadata.csv tell of the images below their folder."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from catalog import storage
from catalog.source.listing import Listing, list_parts, to_parts
from catalog.source.parts import scan_part
from catalog.source.rows import SourceRow

NAMES = ["a.png", "b c.png", "sub/ü.png", "sub/d.png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (number, 0, 0)).save(path)
    return tmp_path / "in"


def scan(listing: Listing) -> dict[str, SourceRow]:
    rows = [row for part in to_parts(listing.table) for row in scan_part(part)]
    return {row.uri.rpartition("/")[2]: row for row in rows}


def write_jsonl(path: Path, rows: list[Any]) -> None:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))


def test_rows_tell_captions_and_scores(folder: Path) -> None:
    rows = [
        {"file_name": "a.png", "text": "an a", "aesthetic": 5.5},
        {"file_name": "./b c.png", "text": "a b", "popularity": 3},
        {"file_name": "sub/ü.png", "text": "a u"},
    ]
    write_jsonl(folder / "metadata.jsonl", rows)
    listing = list_parts([str(folder)])
    found = scan(listing)
    assert [found[name].caption for name in ("a.png", "b%20c.png", "%C3%BC.png", "d.png")] == [
        *("an a", "a b", "a u", None)
    ]
    assert (found["a.png"].scores, found["b%20c.png"].popularity) == ({"aesthetic": 5.5}, 3)
    assert listing.ignored == {}


def test_csv_is_read_as_well(folder: Path) -> None:
    text = "\ufefffile_name,text,aesthetic\n" + 'sub/d.png,"a d, with a comma",4.5\na.png,12,\n'
    (folder / "metadata.csv").write_text(text, encoding="utf-8")
    found = scan(list_parts([str(folder)]))
    assert found["d.png"].caption == "a d, with a comma"
    assert found["d.png"].scores == {"aesthetic": 4.5}
    assert (found["a.png"].caption, found["a.png"].scores) == ("12", {})


def test_what_is_beside_an_image_goes_first(folder: Path) -> None:
    write_jsonl(folder / "metadata.jsonl", [{"file_name": "a.png", "text": "of the table"}])
    (folder / "a.txt").write_text("of the file")
    assert scan(list_parts([str(folder)]))["a.png"].caption == "of the file"


def test_rows_that_cannot_be_used_are_counted(folder: Path) -> None:
    rows = [
        {"file_name": "a.png", "text": "first"},
        {"file_name": "gone.png", "text": "x"},
        {"file_name": "../in/a.png", "text": "from outside"},
        {"text": "no name"},
        "no json",
        "[1]",
        "",
    ]
    write_jsonl(folder / "metadata.jsonl", rows)
    listing = list_parts([str(folder)])
    assert scan(listing)["a.png"].caption == "first"
    assert listing.ignored == {
        "rows of metadata.jsonl that name no file of its folder": 4,
        "rows of a folder's table whose image is not there": 1,
    }


def test_only_images_whose_rows_changed_have_another_stamp(folder: Path) -> None:
    def stamps() -> list[str]:
        stamped: list[str] = list_parts([str(folder)]).table["stamp"].to_pylist()
        return stamped

    rows = [{"file_name": name, "text": name} for name in ("a.png", "b c.png")]
    write_jsonl(folder / "metadata.jsonl", rows)
    before = stamps()
    write_jsonl(folder / "metadata.jsonl", [rows[0], rows[1] | {"text": "another"}])
    assert [one == other for one, other in zip(before, stamps(), strict=True)] == [
        *(True, False, True, True)
    ]


def test_tables_of_an_object_storage_are_read(folder: Path, s3: str) -> None:
    write_jsonl(folder / "metadata.jsonl", [{"file_name": "sub/ü.png", "text": "a u"}])
    for path in folder.rglob("*.*"):
        storage.write_atomic(f"{s3}/in/{path.relative_to(folder)}", path.read_bytes())
    assert scan(list_parts([f"{s3}/in"]))["ü.png"].caption == "a u"
