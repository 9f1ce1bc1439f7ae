"""Everything that goes wrong with images ends as a sample or as a row with a stable reason."""

import gc
import io
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from catalog import tables
from catalog.dataset.dataset import REJECTS, SOURCE, Dataset, View
from catalog.dataset.verify import verify
from catalog.images import decode_image
from catalog.storage import local_path
from pipeline.build.build import BuildResult
from pipeline.recipe.recipe import load_recipe
from tests.corpus import Expected, huge_png, noise, write_bad_corpus
from tests.rules import ANY_LOOK

Make = Callable[..., BuildResult]

_CORNER = 10  # pixels from the edge of a stored picture of 64: inside its quadrant, past the blur
_NEAR = 12  # levels that JPEG may move a flat colour


class Built:
    """The dataset of the corpus: rows of the ledger and samples, by the corpus' names."""

    def __init__(self, folder: Path, out: Path, expected: dict[str, Expected]) -> None:
        self.folder, self.out, self.expected = folder, out, expected
        self.dataset = Dataset.open(str(out))
        self.source = tables.read_table(str(out / SOURCE)).to_pylist()
        rejects = tables.read_table(str(out / REJECTS)).to_pylist()
        self.names = _names(self.source)
        self.rejects = {self.names[_place(row)]: row for row in rejects}
        view = self.dataset.view()
        keys = {row["sha256"][:32]: self.names[_place(row)] for row in self.source if _good(row)}
        self.samples = {keys[row["key"]]: at for at, row in enumerate(view.table.to_pylist())}
        self.view: View = view


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["uri"], row["offset"], row["row"]


def _good(row: dict[str, Any]) -> bool:
    return bool(row["status"] == "ok")


def _names(source: list[dict[str, Any]]) -> dict[tuple[Any, ...], str]:
    """Name each row as the corpus does: members of a tar by their order, rows by their number."""
    names: dict[tuple[Any, ...], str] = {}
    members: dict[str, int] = {}
    for row in sorted(source, key=lambda row: (row["uri"], row["offset"] or 0)):
        path = local_path(row["uri"])
        assert path is not None
        if row["offset"] is not None:
            number = members[path.name] = members.get(path.name, -1) + 1
            names[_place(row)] = f"{path.name}#{number}"
        else:
            names[_place(row)] = path.name + ("" if row["row"] is None else f"#{row['row']}")
    return names


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Expected]]:
    folder = tmp_path_factory.mktemp("corpus") / "in"
    return folder, write_bad_corpus(folder)


def command(folder: Path, out: Path, *more: str) -> list[str]:
    line = [sys.executable, "-m", "pipeline", "build", "canny", "--local"]
    line += ["--images", str(folder), "--out", str(out), "--threads", "2"]
    overrides = ["image.resolution=64", "samples_per_unit=16", *ANY_LOOK]
    return [*line, *(word for one in overrides for word in ("--set", one)), *more]


@pytest.fixture(scope="module")
def built(
    corpus: tuple[Path, dict[str, Expected]], tmp_path_factory: pytest.TempPathFactory
) -> Built:
    """Build the corpus through the command line, as a user does."""
    folder, expected = corpus
    out = tmp_path_factory.mktemp("built") / "d"
    done = subprocess.run(command(folder, out), capture_output=True, text=True, check=False)
    shown = done.stdout + done.stderr
    assert done.returncode == 3, shown
    assert "Traceback" not in shown
    assert "Warning" not in shown
    assert re.search(r"\d+\.\d% of the images failed", done.stderr)
    return Built(folder, out, expected)


def test_every_image_has_the_expected_verdict(built: Built) -> None:
    verdicts = dict.fromkeys(built.samples, "ok")
    verdicts |= {name: row["status"] for name, row in built.rejects.items()}
    assert verdicts == {name: wanted.status for name, wanted in built.expected.items()}


def test_measured_values_and_thresholds_are_kept(built: Built) -> None:
    for name, row in built.rejects.items():
        wanted = built.expected[name]
        assert (row["value"], row["threshold"]) == (wanted.value, wanted.threshold), name


def test_nothing_is_lost(built: Built) -> None:
    status = built.dataset.status()
    assert status.images == len(built.source) == len(built.expected)
    assert status.images == status.samples + sum(status.rejects.values())
    assert status.samples == len(built.view) == len(built.samples)
    assert sum(status.rejects.values()) == len(built.rejects)
    assert not built.samples.keys() & built.rejects.keys()


def test_pixels_are_upright_and_right(built: Built) -> None:
    wanted = {name: made.corners for name, made in built.expected.items() if made.corners}
    assert sum(name.startswith("turned_") for name in wanted) == 24
    for name, corners in wanted.items():
        pixels = decode_image(built.view.read(built.samples[name]).image).astype(int)
        found = [pixels[y, x] for y in (_CORNER, -_CORNER) for x in (_CORNER, -_CORNER)]
        assert np.abs(np.array(found) - np.array(corners)).max() <= _NEAR, (name, found)


def test_image_and_condition_have_one_size(built: Built) -> None:
    for name, at in built.samples.items():
        sample = built.view.read(at)
        sizes = {decode_image(data).shape for data in (sample.image, sample.conditions["canny"])}
        assert sizes == {(64, 64, 3)}, name
        assert (sample.metadata["width"], sample.metadata["height"]) == (64, 64)


def test_captions_are_one_clean_line(built: Built) -> None:
    for name, at in built.samples.items():
        caption = built.view.read(at).caption
        wanted = built.expected[name].caption
        assert wanted is None or caption == wanted, name
        assert len(caption) <= 2000
        assert caption.isprintable() or "\ufffd" in caption, name


def test_found_sizes_are_those_after_rotation(built: Built) -> None:
    sizes = {built.names[_place(row)]: (row["width"], row["height"]) for row in built.source}
    for name in built.expected:
        if name.startswith("turned_"):
            assert sizes[name] == (96, 80), name


def test_verify_finds_no_fault(built: Built) -> None:
    assert verify(built.dataset) == []


def test_running_again_changes_nothing(built: Built) -> None:
    again = command(built.folder, built.out)
    done = subprocess.run(again, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "nothing to do" in done.stdout
    allowed = [*again, "--max-failed-share", "0.5"]
    assert subprocess.run(allowed, capture_output=True, check=False).returncode == 0


def test_the_scan_command_survives_the_corpus(built: Built, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "pipeline", "scan", "--images", str(built.folder)]
    line += ["--out", str(tmp_path / "source.parquet")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "no suffix" not in done.stdout


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_tars(built: Built) -> None:
    import webdataset

    read = {}
    for tar in sorted((built.out / "shards").glob("*.tar")):
        for raw in webdataset.WebDataset(str(tar), shardshuffle=False):
            read[raw["__key__"]] = raw
    gc.collect()  # webdataset leaves its files to the collector; here their warnings are ignored
    assert set(read) == set(built.view.table["key"].to_pylist())
    for at in built.samples.values():
        sample = built.view.read(at)
        raw = read[sample.key]
        assert raw["jpg"] == sample.image
        assert raw["canny.png"] == sample.conditions["canny"]
        assert raw["txt"].decode() == sample.caption
        assert raw["json"].decode().startswith("{")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:datasets")
def test_hugging_face_datasets_reads_the_tars(
    built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    tars = sorted(map(str, (built.out / "shards").glob("*.tar")))
    loaded = datasets.load_dataset(
        "webdataset", data_files=tars, split="train", streaming=False, cache_dir=str(tmp_path)
    )
    read = {row["__key__"]: row for row in loaded}
    assert len(loaded) == len(read) == len(built.samples)
    for at in built.samples.values():
        sample = built.view.read(at)
        row = read[sample.key]
        assert np.array_equal(np.asarray(row["jpg"]), decode_image(sample.image))
        edges = np.asarray(Image.open(io.BytesIO(sample.conditions["canny"])))
        assert np.array_equal(np.asarray(row["canny.png"]), edges)
        assert row["txt"] == sample.caption
        assert row["json"]["sha256"] == sample.metadata["sha256"]


def test_a_picture_too_long_to_store_uncropped_is_a_row(tmp_path: Path, make: Make) -> None:
    """With crop=none the stored size follows the shape: a strip would take gigabytes."""
    source = tmp_path / "in"
    source.mkdir()
    Image.new("RGB", (30_000, 1), "red").save(source / "strip.png")
    Image.new("RGB", (1, 17), "red").save(source / "upright_strip.png")
    Image.new("RGB", (16, 1), "red").save(source / "good.png")
    recipe = load_recipe("canny", ["image.resolution=64", "image.crop=none", *ANY_LOOK])
    result = make(source, tmp_path / "d", recipe=recipe)
    assert result.status.samples == 1
    assert result.status.rejects == {"rejected:max_aspect": 2}
    rejects = tables.read_table(str(tmp_path / "d" / REJECTS)).to_pylist()
    assert {(row["value"], row["threshold"]) for row in rejects} == {(30_000, 16), (17, 16)}


def test_an_encoder_that_gives_up_costs_that_image(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(3):
        (source / f"{number}.png").write_bytes(noise(number))
    calls = iter(range(100))

    def encode(*arguments: Any) -> bytes:
        if next(calls) == 1:
            raise ZeroDivisionError("not this picture")
        return b"encoded"

    monkeypatch.setattr("pipeline.unit.pack.encode_jpeg", encode)
    result = make(source, tmp_path / "d")
    assert result.status.samples == 2
    assert result.status.rejects == {"failed:ZeroDivisionError": 1}


def test_a_build_where_every_image_is_judged_ends_0(
    corpus: tuple[Path, dict[str, Expected]], tmp_path: Path
) -> None:
    """Rejections are no failures: without the files that cannot be read at all, the exit is 0."""
    folder, expected = corpus
    containers = defaultdict(list)
    for name, wanted in expected.items():
        containers[name.partition("#")[0]].append(wanted.status)
    unreadable = [
        name for name, found in containers.items() if any(s.startswith("failed:") for s in found)
    ]
    unreadable.append("pathed.bin")  # only paths.parquet, which goes, leads to it
    excludes = [word for name in unreadable for word in ("--exclude", name)]
    done = subprocess.run(
        command(folder, tmp_path / "d", *excludes), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    status = Dataset.open(str(tmp_path / "d")).status()
    left = [found for name, found in containers.items() if name not in unreadable]
    assert status.images == sum(map(len, left))
    assert status.samples == sum(statuses.count("ok") for statuses in left)


def test_the_huge_picture_is_valid(tmp_path: Path) -> None:
    """The corpus' one-bit PNG is what it claims, at a side that is quick to decode."""
    assert (decode_image(huge_png(100)) == 0).all()
    assert decode_image(huge_png(100)).shape == (100, 100, 3)


def test_uris_name_files_whose_names_are_not_utf8(built: Built) -> None:
    uris = [row["uri"] for row in built.source if "not-utf8" in row["uri"]]
    assert len(uris) == 1
    assert uris[0].isascii()
    assert unquote(uris[0], errors="surrogateescape").endswith("not-utf8-\udcff\udcfe.png")
