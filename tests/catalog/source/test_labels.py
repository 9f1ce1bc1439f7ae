"""Ground truth beside images: found by name, read as it is, cropped as its image is."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalog.errors import ImageError
from catalog.images import decode_image, fit
from catalog.sample import sha256_hex
from catalog.source.labels import Labels, fit_label, read_label
from catalog.source.listing import list_parts
from catalog.source.parts import scan_part
from tests.corpus import huge_png


def png(pixels: np.ndarray, palette: bool = False) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    if palette:
        picture.putpalette(bytes(range(256)) * 3)
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def picture() -> bytes:
    return png(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))


def test_labels_in_a_tree_of_their_own(tmp_path: Path, picture: bytes) -> None:
    write(tmp_path / "images" / "a" / "1.jpg", picture)
    write(tmp_path / "images" / "b" / "1.jpg", picture + b" ")
    write(tmp_path / "images" / "b" / "2.jpg", picture + b"  ")
    label = write(tmp_path / "labels" / "b" / "1.png", png(np.zeros((6, 8), np.uint8)))
    labels = Labels(root=str(tmp_path / "labels"), suffix=".png")
    parts = list_parts([str(tmp_path / "images")], labels=labels).parts
    assert [part.label for part in parts] == [None, label.as_uri(), None]
    (row,) = scan_part(parts[1])
    assert row.label_sha256 == sha256_hex(label.read_bytes())


def test_labels_beside_images_are_no_images(tmp_path: Path, picture: bytes) -> None:
    write(tmp_path / "1.png", picture)
    label = write(tmp_path / "1_ids.png", png(np.zeros((6, 8), np.uint8)))
    write(tmp_path / "2_ids.png", picture)  # no image has this label: it is one itself
    listing = list_parts([str(tmp_path)], labels=Labels(suffix="_ids.png"))
    assert [part.label for part in listing.parts] == [label.as_uri(), None]
    assert listing.ignored == {"labels": 1}


def test_a_label_beside_is_that_of_its_own_folder(tmp_path: Path) -> None:
    for folder in ("indoors", "outdoors"):
        write(tmp_path / folder / "0001.jpg", b"")
        write(tmp_path / folder / "0001_normal.npy", b"")
    labels = Labels(suffix="_normal.npy")
    roots = [str(tmp_path / "indoors"), str(tmp_path / "outdoors")]
    found = list_parts(roots, labels=labels)
    assert [part.label for part in found.parts] == [
        (tmp_path / folder / "0001_normal.npy").as_uri() for folder in ("indoors", "outdoors")
    ]
    alone = list_parts([f"{root}/0001.jpg" for root in roots], labels=labels)
    assert alone.table.equals(found.table)


def test_a_label_that_two_images_claim_is_neithers(tmp_path: Path, picture: bytes) -> None:
    for folder in ("train", "val"):
        write(tmp_path / folder / "x.jpg", picture)
    label = write(tmp_path / "labels" / "x.png", b"")
    roots = [str(tmp_path / "train"), str(tmp_path / "val")]
    labels = Labels(suffix=".png", root=str(tmp_path / "labels"))
    first, second = list_parts(roots, labels=labels).parts
    assert (first.label, second.label) == (None, None)
    (row,) = scan_part(first)
    assert row.detail == f"the label {label.as_uri()} is claimed by {second.uri} too"
    assert list_parts(roots[:1], labels=labels).parts[0].label == label.as_uri()


def test_a_label_is_found_in_any_case(tmp_path: Path, picture: bytes) -> None:
    write(tmp_path / "images" / "Caf\u00e9" / "b.JPG", picture)
    label = write(tmp_path / "labels" / "cafe\u0301" / "B.PNG", b"")
    labels = Labels(suffix=".png", root=str(tmp_path / "labels"))
    (part,) = list_parts([str(tmp_path / "images")], labels=labels).parts
    assert part.label == label.as_uri()


def test_an_image_without_a_label_says_where_it_was_looked_for(
    tmp_path: Path, picture: bytes
) -> None:
    write(tmp_path / "images" / "a" / "1.jpg", picture)
    (tmp_path / "labels").mkdir()
    labels = Labels(suffix=".png", root=str(tmp_path / "labels"))
    (row,) = scan_part(list_parts([str(tmp_path / "images")], labels=labels).parts[0])
    assert row.detail == f"no label a/1.png in {tmp_path / 'labels'}"


def test_an_image_is_not_its_own_label(tmp_path: Path, picture: bytes) -> None:
    write(tmp_path / "1.png", picture)
    (part,) = list_parts([str(tmp_path)], labels=Labels(suffix=".png")).parts
    assert part.label is None


@pytest.mark.parametrize(
    ("kind", "palette"), [(np.uint8, False), (np.uint8, True), (np.uint16, False)]
)
def test_a_picture_gives_its_ids(tmp_path: Path, kind: type, palette: bool) -> None:
    ids = (np.arange(48).reshape(6, 8) * (5 if kind is np.uint8 else 1000)).astype(kind)
    path = write(tmp_path / "ids.png", png(ids, palette))
    found = read_label(str(path), sha256_hex(path.read_bytes()), (8, 6))
    assert (found == ids).all()


def test_an_array_comes_as_it_is(tmp_path: Path) -> None:
    normals = np.random.default_rng(0).normal(size=(6, 8, 3)).astype(np.float32)
    np.save(tmp_path / "n.npy", normals)
    data = (tmp_path / "n.npy").read_bytes()
    assert (read_label(str(tmp_path / "n.npy"), sha256_hex(data), (8, 6)) == normals).all()


def test_what_is_no_label_is_a_rejection(tmp_path: Path, picture: bytes) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    write(tmp_path / "text.png", b"no picture")
    write(tmp_path / "colours.png", picture)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ImageError) as raised:
            read_label(str(path), sha256_hex(path.read_bytes()), (8, 6))
        assert raised.value.rule == "label"
    with pytest.raises(ImageError, match="changed after it was scanned"):
        read_label(str(tmp_path / "colours.png"), "0" * 64, (8, 6))


@pytest.mark.parametrize("crop", ["center", "none"])
@pytest.mark.parametrize("size", [(300, 200), (64, 64), (70, 130)])
def test_a_label_stays_under_its_pixels(crop: str, size: tuple[int, int]) -> None:
    width, height = size
    ids = np.zeros((height, width), np.int32)
    ids[height // 3 : 2 * height // 3, width // 2 :] = 150
    image = np.repeat(ids.astype(np.uint8)[:, :, None], 3, axis=2)
    label = fit_label(ids, width=width, height=height, resolution=64, crop=crop)
    pixels = fit(image, resolution=64, crop=crop)
    assert label.shape == pixels.shape[:2]
    assert set(np.unique(label)) <= {0, 150}
    assert (np.abs(label - pixels[:, :, 0].astype(int)) > 100).mean() < 0.02


def test_a_label_of_another_size_is_refused() -> None:
    with pytest.raises(ImageError, match="the label is 8x6, its image 6x8"):
        fit_label(np.zeros((6, 8)), width=6, height=8, resolution=64, crop="none")
    assert decode_image(png(np.zeros((6, 8, 3), np.uint8))).shape == (6, 8, 3)


def test_a_bomb_as_label_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    data = huge_png(30_000)
    path = write(tmp_path / "bomb.png", data)
    with pytest.raises(ImageError, match="the label is 30000x30000, its image 8x6"):
        read_label(str(path), sha256_hex(data), (8, 6))
