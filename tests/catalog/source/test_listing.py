"""A listing names what there is once, with what lies beside it, and reads nothing."""

import os
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest

from catalog.errors import PlaceError, SourceError, StorageError
from catalog.source.labels import Labels
from catalog.source.listing import PARTS, Listing, list_parts, to_parts
from catalog.source.parts import Part


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    def write(*names: str) -> Path:
        for name in names:
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        return tmp_path / "in"

    return write


def names_of(listing: Listing, folder: Path) -> list[str]:
    return [part.uri.removeprefix(folder.as_uri() + "/") for part in listing.parts]


def test_parts_are_sorted_and_have_their_kinds(put: Callable[..., Path]) -> None:
    folder = put("b/x.PNG", "a.tar", "a/1.jpg", "c.parquet", "d.TAR", "e.txt", "f")
    listing = list_parts([str(folder)])
    assert listing.table.schema == PARTS
    assert names_of(listing, folder) == ["a.tar", "a/1.jpg", "b/x.PNG", "c.parquet", "d.TAR"]
    assert [part.kind for part in listing.parts] == ["tar", "file", "file", "parquet", "tar"]
    assert listing.ignored == {".txt": 1, "no suffix": 1}
    assert to_parts(listing.table.slice(2, 1)) == listing.parts[2:3]


def test_what_lies_beside_is_named(put: Callable[..., Path]) -> None:
    folder = put(
        "a.b.jpg", "a.b.txt", "c.jpg", "c.json", "c.txt", "d.jpg", "d.TXT", "e.tar", "e.txt"
    )
    found = {Path(part.uri).name: part for part in list_parts([str(folder)]).parts}
    base = folder.as_uri()
    assert found["a.b.jpg"].sidecars == {"txt": f"{base}/a.b.txt"}
    assert found["c.jpg"].sidecars == {end: f"{base}/c.{end}" for end in ("txt", "json")}
    assert found["d.jpg"].sidecars == {"txt": f"{base}/d.TXT"}
    assert found["e.tar"] == Part(uri=f"{base}/e.tar", kind="tar")


def test_a_file_given_alone_has_its_neighbours_beside_it(put: Callable[..., Path]) -> None:
    folder = put("a.jpg", "a.txt", "b.jpg", "b.json", "c.jpg", "other.doc")
    whole = list_parts([str(folder)])
    alone = list_parts([str(folder / f"{name}.jpg") for name in "abc"])
    assert alone.table.equals(whole.table)
    assert alone.ignored == {}
    assert whole.ignored == {".doc": 1}


@pytest.mark.parametrize(
    ("image", "beside", "found"),
    [
        ("Photo.JPG", "photo.txt", True),
        ("caf\u00e9.jpg", "cafe\u0301.txt", True),
        ("Stra\u00dfe.jpg", "STRASSE.TXT", True),
        ("y.jpg", "y.jpg.txt", True),
        ("x.jpg", "x.caption", True),
        ("x.jpg", "xy.txt", False),
        ("x.y.jpg", "x.txt", False),
    ],
)
def test_a_stem_is_found_in_any_case_and_form(
    put: Callable[..., Path], image: str, beside: str, found: bool
) -> None:
    listing = list_parts([str(put(image, beside))])
    assert bool(listing.parts[0].sidecars) is found
    assert sum(listing.ignored.values()) == (not found)


def test_an_exact_stem_is_taken_by_no_other_image(put: Callable[..., Path]) -> None:
    folder = put("a.jpg", "a.txt", "A.jpg", "b.jpg", "b.TXT", "b.txt", "b.caption")
    found = {Path(part.uri).name: part.sidecars for part in list_parts([str(folder)]).parts}
    base = folder.as_uri()
    assert found["a.jpg"] == {"txt": f"{base}/a.txt"}
    assert found["A.jpg"] == {}
    assert found["b.jpg"] == {"txt": f"{base}/b.txt"}


@pytest.mark.parametrize(
    ("name", "listed"),
    [("x.y.jpg", True), ("..png", True), (".png", False), ("jpg", False), ("x.jpg.", False)],
)
def test_a_suffix_is_what_follows_the_last_dot(
    put: Callable[..., Path], name: str, listed: bool
) -> None:
    assert bool(list_parts([str(put(f"dir.jpg/{name}"))]).parts) is listed


def test_names_that_are_no_text(put: Callable[..., Path]) -> None:
    folder = put("a.jpg")
    for name in (b"\xff #.jpg", b"\xff #.txt", b"b.\xff"):
        os.close(os.open(os.path.join(os.fsencode(folder), name), os.O_CREAT))
    listing = list_parts([str(folder)])
    assert names_of(listing, folder) == ["%FF%20%23.jpg", "a.jpg"]
    assert listing.parts[0].sidecars == {"txt": folder.as_uri() + "/%FF%20%23.txt"}
    assert listing.ignored == {".?": 1}


def test_a_file_is_listed_once(put: Callable[..., Path]) -> None:
    folder = put("a/1.jpg", "a/2.jpg")
    uris = [str(folder), str(folder / "a"), f"{folder}/a/../a", str(folder / "a" / "1.jpg")]
    assert names_of(list_parts(uris), folder) == ["a/1.jpg", "a/2.jpg"]


def test_a_table_named_as_a_tar_or_folder_tells_of_it(put: Callable[..., Path]) -> None:
    folder = put("0.tar", "0.parquet", "1/a.jpg", "1.parquet", "2.parquet")
    kinds = {Path(part.uri).name: part.kind for part in list_parts([str(folder)]).parts}
    assert [kinds[f"{at}.parquet"] for at in range(3)] == ["metadata", "metadata", "parquet"]


def test_labels_are_no_images(put: Callable[..., Path]) -> None:
    folder = put("img/1.jpg", "img/2.jpg", "img/2.png", "lab/1.png", "lab/3.png")
    labels = Labels(suffix=".png", root=str(folder / "lab"))
    listing = list_parts([str(folder / "img"), str(folder / "lab")], labels=labels)
    assert names_of(listing, folder) == ["img/1.jpg", "img/2.jpg", "img/2.png", "lab/3.png"]
    assert listing.ignored == {"labels": 1}
    assert listing.parts[0].label == (folder / "lab" / "1.png").as_uri()


def test_a_store_lists_as_a_folder_does() -> None:
    store = fsspec.filesystem("memory")
    for name in ("a/é.jpg", "a/é.json", "b.tar", "c.doc"):
        store.pipe(f"/listing/{name}", b"")
    listing = list_parts(["memory://listing"], exclude=["b*"])
    assert [part.uri for part in listing.parts] == ["memory:///listing/a/é.jpg"]
    assert listing.parts[0].sidecars == {"json": "memory:///listing/a/é.json"}
    assert listing.ignored == {".doc": 1, "excluded": 1}
    assert list_parts(["memory://listing/a/é.jpg"]).parts == listing.parts
    with pytest.raises(SourceError, match="nothing is stored below it"):
        list_parts(["memory://nowhere"])


def test_a_folder_that_cannot_be_listed_ends_the_listing_unless_it_is_excluded(
    put: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = put("a.jpg", "lost+found/b.jpg"), os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(
        SourceError, match=r"lost\+found cannot be listed.*--exclude 'lost\+found/\*'"
    ):
        list_parts([str(folder)])
    listing = list_parts([str(folder)], exclude=["lost+found/*"])
    assert names_of(listing, folder) == ["a.jpg"]
    assert listing.ignored == {"folders excluded": 1}


def test_links_to_folders_are_followed_once(put: Callable[..., Path], tmp_path: Path) -> None:
    folder = put("a/1.jpg", "a/deep/2.jpg", "b/3.jpg")
    far = tmp_path / "far"
    (far / "sub").mkdir(parents=True)
    (far / "sub" / "4.jpg").write_bytes(b"")
    (far / "sub" / "back").symlink_to(far)
    (folder / "0").symlink_to(folder / "a")  # comes before what it leads to
    (folder / "a" / "round").symlink_to(folder)
    (folder / "up").symlink_to(tmp_path)
    (folder / "train").symlink_to(far)
    (folder / "val").symlink_to(far)
    listing = list_parts([str(folder)])
    assert names_of(listing, folder) == ["a/1.jpg", "a/deep/2.jpg", "b/3.jpg", "train/sub/4.jpg"]
    assert listing.ignored == {"folders seen already": 4, "links to a folder around the source": 1}


def test_a_link_into_a_place_that_is_not_mounted_ends_the_listing(
    put: Callable[..., Path], tmp_path: Path
) -> None:
    folder = put("a.jpg")
    (tmp_path / "mount").mkdir()
    (folder / "train").symlink_to(tmp_path / "mount" / "train")
    with pytest.raises(PlaceError, match=r"mount is empty; is its disk mounted"):
        list_parts([str(folder)])
    (tmp_path / "mount" / "something").write_bytes(b"")
    assert list_parts([str(folder)]).ignored == {"no suffix": 1}


@pytest.mark.parametrize("uri", ["nosuch://bucket/images", "nosuch://bucket/*.jpg"])
def test_a_storage_that_nobody_knows_is_one_message(uri: str) -> None:
    with pytest.raises(StorageError, match="Expected a local path or a URI that fsspec knows"):
        list_parts([uri])
