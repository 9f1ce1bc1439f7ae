"""The cache of generated texts: files created once, shared without locks."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from catalog import storage
from pipeline.errors import UsageError
from pipeline.unit.caption_cache import CaptionCache, Text, cache_folder


def sha(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def texts(*numbers: int) -> dict[str, str]:
    return {sha(number): f"text {number}" for number in numbers}


def test_what_is_kept_is_found_by_another_worker(tmp_path: Path) -> None:
    CaptionCache(str(tmp_path), "f").keep("u1", texts(1, 2), "here")
    CaptionCache(str(tmp_path), "f").keep("u2", texts(3), "there")
    found = CaptionCache(str(tmp_path), "f").find([sha(3), sha(1), sha(9)])
    assert found == {
        sha(3): Text(text="text 3", made_by="there"),
        sha(1): Text(text="text 1", made_by="here"),
    }


def test_captioners_are_kept_apart(tmp_path: Path) -> None:
    CaptionCache(str(tmp_path), "f").keep("u", texts(1), "")
    assert CaptionCache(str(tmp_path), "g").find([sha(1)]) == {}


def test_an_empty_cache_finds_nothing(tmp_path: Path) -> None:
    cache = CaptionCache(str(tmp_path / "nowhere"), "f")
    assert cache.find([sha(1)]) == cache.find([]) == {}


def test_an_empty_text_is_a_text(tmp_path: Path) -> None:
    CaptionCache(str(tmp_path), "f").keep("u", {sha(1): ""}, "")
    assert CaptionCache(str(tmp_path), "f").find([sha(1)])[sha(1)].text == ""


def test_the_first_attempt_of_a_unit_stays(tmp_path: Path) -> None:
    for text in ("first", "second"):
        CaptionCache(str(tmp_path), "f").keep("u", {sha(1): text}, "")
    assert CaptionCache(str(tmp_path), "f").find([sha(1)])[sha(1)].text == "first"


def test_of_two_units_with_one_image_the_first_name_is_read(tmp_path: Path) -> None:
    CaptionCache(str(tmp_path), "f").keep("b", {sha(1): "late"} | texts(2), "")
    CaptionCache(str(tmp_path), "f").keep("a", {sha(1): "early"} | texts(3), "")
    assert CaptionCache(str(tmp_path), "f").find([sha(1)])[sha(1)].text == "early"


def test_hashes_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    one, other, third = ("a" * 16 + end * 48 for end in "123")
    CaptionCache(str(tmp_path), "f").keep("a", {one: "one"}, "")
    CaptionCache(str(tmp_path), "f").keep("b", {other: "other"}, "")
    found = CaptionCache(str(tmp_path), "f").find([one, other, third])
    assert {sha256: text.text for sha256, text in found.items()} == {one: "one", other: "other"}


def test_many_workers_write_and_read_at_once(tmp_path: Path) -> None:
    def work(number: int) -> int:
        cache = CaptionCache(str(tmp_path), "f")
        cache.find([sha(number)])
        cache.keep(f"u{number % 7}", texts(number % 7, number % 7 + 7), "")
        return len(CaptionCache(str(tmp_path), "f").find([sha(number % 7), sha(number % 7 + 7)]))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, range(56))) == {2}
    assert len(list((tmp_path / "f").iterdir())) == 7


def test_more_files_than_are_held_at_once(tmp_path: Path) -> None:
    for number in range(20):
        CaptionCache(str(tmp_path), "f").keep(f"u{number:02d}", texts(number), "")
    cache = CaptionCache(str(tmp_path), "f")
    for _ in range(2):
        assert len(cache.find(map(sha, range(25)))) == 20


def test_object_storage_serves_as_well(s3: str) -> None:
    CaptionCache(f"{s3}/captions", "f").keep("u", texts(1), "here")
    CaptionCache(f"{s3}/captions", "f").keep("u", texts(2), "here")
    found = CaptionCache(f"{s3}/captions", "f").find([sha(1), sha(2), sha(3)])
    assert set(found) == {sha(1), sha(2)}


@pytest.mark.parametrize(
    ("dataset", "folder"),
    [
        ("/data/sets/canny", "/data/sets/caption-cache"),
        ("/data/sets/canny/", "/data/sets/caption-cache"),
        ("/canny", "/caption-cache"),
        ("file:///data/sets/canny", "/data/sets/caption-cache"),
        ("s3://bucket/sets/canny", "s3://bucket/sets/caption-cache"),
        ("s3://bucket/canny", "s3://bucket/caption-cache"),
        ("s3://bucket", "s3://bucket/caption-cache"),
    ],
)
def test_the_default_lies_beside_the_dataset(
    monkeypatch: pytest.MonkeyPatch, dataset: str, folder: str
) -> None:
    monkeypatch.delenv("CONTROLNET_FACTORY_CAPTIONS", raising=False)
    assert cache_folder(dataset, None) == folder
    monkeypatch.setenv("CONTROLNET_FACTORY_CAPTIONS", "/named")
    assert cache_folder(dataset, None) == "/named"
    assert cache_folder(dataset, "s3://option") == "s3://option"


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(uri: str, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(storage, "create_once", refuse)
    with pytest.raises(UsageError, match=r"Permission denied.*--caption-cache"):
        CaptionCache(str(tmp_path), "f").keep("u", texts(1), "")
