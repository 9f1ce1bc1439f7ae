"""A scan outlives what ends a build before its plan stands, and nothing of it outlives the plan."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from catalog import storage
from catalog.dataset.dataset import Dataset
from catalog.errors import DatasetError
from pipeline.build import build as build_module
from pipeline.build.build import prepare
from pipeline.errors import UsageError
from pipeline.plan.freeze import claim
from pipeline.recipe.recipe import Recipe
from pipeline.scan import chunks as scan_chunks
from pipeline.scan.chunks import Chunk, scan_here
from pipeline.scan.source import Inputs
from tests.pipeline.silent import Silent

Scanner = Callable[[Sequence[Chunk], bool], Iterator[int]]


class Counting:
    """Scans here and keeps how many parts were to be read."""

    def __init__(self) -> None:
        self.parts: list[int] = []

    def __call__(self, chunks: Sequence[Chunk], perceptual: bool) -> Iterator[int]:
        self.parts.append(sum(map(len, chunks)))
        return scan_here(chunks, perceptual)


def freeze(recipe: Recipe, out: str, images: Path | str, scanner: Scanner) -> Dataset:
    return prepare(recipe, out, Inputs(images=[str(images)]), Silent(), scanner)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_chunks, "FILES_A_CHUNK", 1)


def test_no_room_for_the_plan_costs_no_second_scan(
    pictures: Path, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, scanner = str(tmp_path / "d"), Counting()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(build_module, "freeze", full)
        with pytest.raises(OSError, match="No space left"):
            freeze(recipe, out, pictures, scanner)
    assert (tmp_path / "d" / "scan").is_dir()
    freeze(recipe, out, pictures, scanner)
    assert scanner.parts == [10, 0]
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == [
        "logs",
        "plan.parquet",
        "recipe.json",
        "source.parquet",
    ]


def test_unusable_images_are_looked_at_again(tmp_path: Path, recipe: Recipe) -> None:
    folder, scanner = tmp_path / "in", Counting()
    folder.mkdir()
    (folder / "a.png").write_bytes(b"no picture")
    for _ in range(2):
        with pytest.raises(UsageError, match="none of 1 images is usable"):
            freeze(recipe, str(tmp_path / "d"), folder, scanner)
    assert scanner.parts == [1, 1]


def test_another_recipe_is_refused_before_the_scan(
    pictures: Path, tmp_path: Path, recipe: Recipe
) -> None:
    scanner = Counting()
    claim(str(tmp_path / "d"), recipe.model_copy(update={"seed": 9}))
    with pytest.raises(DatasetError, match="belongs to recipe"):
        freeze(recipe, str(tmp_path / "d"), pictures, scanner)
    assert scanner.parts == []


def test_the_plan_of_a_build_that_was_faster_is_taken(
    pictures: Path, tmp_path: Path, recipe: Recipe, small_chunks: None
) -> None:
    out = str(tmp_path / "d")

    def outrun(chunks: Sequence[Chunk], perceptual: bool) -> Iterator[int]:
        yield from scan_here(chunks[:1], perceptual)
        freeze(recipe, out, pictures, scan_here)  # and tidies up
        yield from scan_here(chunks[1:], perceptual)

    dataset = freeze(recipe, out, pictures, outrun)
    alone = freeze(recipe, str(tmp_path / "alone"), pictures, scan_here)
    assert dataset.unit_ids == alone.unit_ids


def test_a_scan_on_s3_is_resumed_and_tidied_up(
    s3: str, pictures: Path, tmp_path: Path, recipe: Recipe, small_chunks: None
) -> None:
    for path in pictures.rglob("*.*"):
        below = path.relative_to(pictures).as_posix()
        storage.write_atomic(f"{s3}/pictures/{below}", path.read_bytes())
    out, scanner = f"{s3}/d", Counting()
    left: list[Chunk] = []

    def killed(chunks: Sequence[Chunk], perceptual: bool) -> Iterator[int]:
        left.extend(chunks[2:])
        yield from scan_here(chunks[:2], perceptual)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        freeze(recipe, out, f"{s3}/pictures", killed)
    assert len(storage.walk(f"{out}/scan")) == 2
    assert left
    dataset = freeze(recipe, out, f"{s3}/pictures", scanner)
    assert scanner.parts == [sum(map(len, left))]
    assert storage.walk(f"{out}/scan") == []
    alone = freeze(recipe, str(tmp_path / "d"), pictures, scan_here)
    assert dataset.unit_ids == alone.unit_ids
