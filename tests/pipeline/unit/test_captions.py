"""Captions in builds: by source, both texts kept, and no image looked at twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioning.blip_network import Blip
from catalog.dataset.dataset import Dataset
from catalog.dataset.verify import differences, verify
from catalog.errors import DatasetError
from pipeline.build.build import BuildResult, Executor, build
from pipeline.build.local import run_local
from pipeline.errors import BuildError, UsageError
from pipeline.ledger.remake import rebuild_sampled
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe, load_recipe
from pipeline.scan.source import Inputs
from pipeline.unit.caption_cache import CaptionCache
from pipeline.unit.captions import captioner_fingerprint
from tests.pipeline.silent import Silent
from tests.random_vision_language import save_random_florence2
from tests.rules import ANY_LOOK

BATCH = 2


@pytest.fixture
def with_blip(random_blip: Path) -> Callable[..., Recipe]:
    """Return the small Canny recipe with a captioner that has a network."""

    def made(captioner: str = "blip", name: str = "canny", **overrides: Any) -> Recipe:
        fields = {
            "image.resolution": 64,
            "samples_per_unit": 3,
            "captions.captioner": captioner,
            "captions.model": str(random_blip),
            "captions.batch_size": BATCH,
            **overrides,
        }
        given = [f"{key}={json.dumps(value)}" for key, value in fields.items()]
        return load_recipe(name, [*ANY_LOOK, *given])

    return made


class Made:
    """A dataset, and what its build told."""

    def __init__(self, uri: str, observer: Silent, result: BuildResult) -> None:
        self.uri = uri
        self.batches = [report.caption_batches for report in observer.reports]
        self.result = result

    @property
    def captions(self) -> dict[str, dict[str, str]]:
        view = Dataset.open(self.uri).view()
        samples = [view.read(index) for index in range(len(view))]
        assert all(sample.caption == sample.metadata["caption"]["text"] for sample in samples)
        return {sample.metadata["sha256"]: sample.metadata["caption"] for sample in samples}


def run(recipe: Recipe, out: Path | str, images: Path | str | None = None, **how: Any) -> Made:
    observer, execution = Silent(), Execution(threads=2, **how.pop("execution", {}))
    inputs = Inputs(images=[str(images)] if images else [], dataset=how.pop("dataset", None))
    executor: Executor = how.pop("executor", run_local)
    result = build(recipe, str(out), inputs, execution, executor=executor, observer=observer)
    return Made(str(out), observer, result)


def found_beside(pictures: Path) -> set[str]:
    return {path.read_text().strip() for path in pictures.rglob("*.txt")}


def test_each_source_keeps_both_texts_under_the_same_names(
    with_blip: Callable[..., Recipe], pictures: Path, tmp_path: Path
) -> None:
    made = {
        captioner: run(with_blip(captioner), tmp_path / captioner, pictures).captions
        for captioner in ("blip", "sidecar_or_blip", "blip_with_sidecar_kept")
    }
    made["sidecar"] = run(
        load_recipe("canny", ["image.resolution=64", "captions.captioner=sidecar"]),
        tmp_path / "sidecar",
        pictures,
    ).captions
    blip = {key: caption["text"] for key, caption in made["blip"].items()}
    beside = {key: caption["text"] for key, caption in made["sidecar"].items()}
    assert found_beside(pictures) | {""} == set(beside.values())
    for key, text in blip.items():
        found = beside[key]
        assert made["blip"][key] == said(text, "blip", "", text)
        assert made["blip_with_sidecar_kept"][key] == said(text, "blip", found, text)
        expected = said(found, "sidecar", found, "") if found else said(text, "blip", "", text)
        assert made["sidecar_or_blip"][key] == expected
        assert made["sidecar"][key] == said(found, "sidecar" if found else "none", found, "")


def said(text: str, source: str, sidecar: str, blip: str) -> dict[str, str]:
    return {"text": text, "source": source, "sidecar": sidecar, "blip": blip}


def test_two_lengths_of_a_vision_language_model_are_kept(
    with_blip: Callable[..., Recipe], pictures: Path, tmp_path: Path
) -> None:
    folder = save_random_florence2(tmp_path / "random-florence2")
    fields = {"captions.model": str(folder), "captions.max_new_tokens": 6, "captions.both": True}
    short = run(with_blip("sidecar_or_florence2", **fields), tmp_path / "short", pictures)
    beside = found_beside(pictures)
    origins = set()
    for caption in short.captions.values():
        origins.add(caption["source"])
        assert set(caption) == {"text", "source", "sidecar", "blip", "short", "long"}
        if caption["source"] == "sidecar":
            assert caption["text"] in beside
            assert caption["short"] == caption["long"] == ""
        else:
            assert caption["text"] == caption["short"] != caption["long"]
    assert origins == {"sidecar", "florence2"}
    assert sum(short.batches) > 0
    fields["captions.length"] = "long"
    long = run(with_blip("sidecar_or_florence2", **fields), tmp_path / "long", pictures)
    assert sum(long.batches) == 0  # the same texts, from the cache
    for key, caption in long.captions.items():
        assert caption["short"] == short.captions[key]["short"]
        assert caption["text"] in (caption["long"], caption["sidecar"])


def test_a_vision_language_model_that_is_not_here_is_refused(
    with_blip: Callable[..., Recipe], pictures: Path, tmp_path: Path
) -> None:
    absent = with_blip(
        "qwen3_vl",
        **{"captions.model": "Qwen/Qwen3-VL-2B-Instruct", "captions.revision": "0" * 40},
    )
    with pytest.raises(UsageError, match=r"hf download Qwen/Qwen3-VL-2B-Instruct --revision 0{40}"):
        run(absent, tmp_path / "d", pictures)
    assert not (tmp_path / "d" / "commits").exists()


def test_images_whose_own_text_is_taken_are_not_looked_at(
    with_blip: Callable[..., Recipe],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at: list[int] = []
    prepare = Blip.prepare
    monkeypatch.setattr(
        Blip, "prepare", lambda self, image: looked_at.append(1) or prepare(self, image)
    )
    run(with_blip("sidecar_or_blip"), tmp_path / "d", pictures)
    assert len(looked_at) == 10 - len(list(pictures.rglob("*.txt")))


def test_a_second_recipe_over_the_same_images_captions_nothing(
    with_blip: Callable[..., Recipe], pictures: Path, tmp_path: Path
) -> None:
    first = run(with_blip(), tmp_path / "a", pictures)
    assert sum(first.batches) >= 10 / BATCH
    other = {"detectors.0.low": 60, "rules.min_side": 81, "samples_per_unit": 4, "seed": 5}
    second = run(with_blip(**other), tmp_path / "b", pictures)
    assert second.batches == [0] * len(second.batches)
    assert 0 < len(second.captions) < 10
    for key, caption in second.captions.items():
        assert caption == first.captions[key]
    logs = next((tmp_path / "b" / "logs").glob("*.jsonl")).read_text().splitlines()
    units = [line for line in map(json.loads, logs) if line["event"] == "unit"]
    assert [line["caption_batches"] for line in units] == second.batches
    third = run(with_blip("blip_with_sidecar_kept"), tmp_path / "c", pictures)
    assert sum(third.batches) == 0


@pytest.mark.parametrize(
    "changed", [{"captions.max_new_tokens": 5}, {"captions.prefix": "a"}, {"image.resolution": 128}]
)
def test_what_changes_a_text_is_captioned_anew(
    with_blip: Callable[..., Recipe], pictures: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    assert captioner_fingerprint(with_blip(**changed)) != captioner_fingerprint(with_blip())
    run(with_blip(), tmp_path / "a", pictures)
    assert sum(run(with_blip(**changed), tmp_path / "b", pictures).batches) >= 10 / BATCH


def test_cached_and_fresh_texts_give_the_same_bytes(
    with_blip: Callable[..., Recipe], pictures: Path, tmp_path: Path
) -> None:
    fresh, cached = tmp_path / "one" / "d", tmp_path / "two" / "d"
    run(with_blip(), fresh, pictures)
    run(with_blip(**{"samples_per_unit": 5}), tmp_path / "two" / "other", pictures)
    assert sum(run(with_blip(), cached, pictures).batches) == 0
    assert differences(str(fresh), str(cached)) == []


def test_a_rebuild_captions_again_and_finds_the_same(
    with_blip: Callable[..., Recipe], pictures: Path, tmp_path: Path
) -> None:
    made = run(with_blip(), tmp_path / "d", pictures)
    for path in (tmp_path / "caption-cache").rglob("*.parquet"):
        path.write_bytes(b"never read")
    assert rebuild_sampled(Dataset.open(made.uri), 2, Execution(threads=1)) == []


def test_a_part_of_the_texts_may_be_known(
    with_blip: Callable[..., Recipe], pictures: Path, tmp_path: Path
) -> None:
    some = run(with_blip(), tmp_path / "some", pictures / "even")
    everything = run(with_blip(), tmp_path / "all", pictures)
    assert 0 < sum(everything.batches) <= sum(some.batches) + 2
    for key, caption in some.captions.items():
        assert everything.captions[key] == caption
    assert len(list((tmp_path / "caption-cache").rglob("*.parquet"))) > len(some.batches)


def test_what_a_units_file_lacks_is_kept_beside_it(tmp_path: Path) -> None:
    """The same unit with fewer texts beside its images has more to generate."""
    first, second = (CaptionCache(str(tmp_path), "blip") for _ in range(2))
    first.keep("u" * 32, {"a" * 64: "one"}, "here")
    second.keep("u" * 32, {"a" * 64: "other", "b" * 64: "two"}, "here")
    second.keep("u" * 32, {"a" * 64: "other", "b" * 64: "two"}, "here")
    for found in (
        CaptionCache(str(tmp_path), "blip").find(["a" * 64, "b" * 64]),
        CaptionCache(str(tmp_path), "blip").of_unit("u" * 32),
    ):
        assert {sha256: one.text for sha256, one in found.items()} == {
            "a" * 64: "one",
            "b" * 64: "two",
        }
    assert len(list(tmp_path.rglob("*.parquet"))) == 2


def test_the_cache_lies_where_it_is_told_to(
    with_blip: Callable[..., Recipe],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONTROLNET_FACTORY_CAPTIONS", str(tmp_path / "named"))
    run(with_blip(), tmp_path / "a", pictures / "even")
    assert list((tmp_path / "named").rglob("*.parquet"))
    option = {"caption_cache": str(tmp_path / "option")}
    again = run(with_blip(), tmp_path / "b", pictures / "even", execution=option)
    assert sum(again.batches) > 0
    assert list((tmp_path / "option").rglob("*.parquet"))
    assert not (tmp_path / "caption-cache").exists()


def test_an_empty_caption_is_rejected(
    with_blip: Callable[..., Recipe],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Blip, "__call__", lambda self, images: ["arafed \x00"] * len(images))
    made = run(with_blip("sidecar_or_blip"), tmp_path / "d", pictures)
    without = 10 - len(list(pictures.rglob("*.txt")))
    assert made.result.status.rejects == {"rejected:caption": without}
    assert made.result.status.samples == 10 - without


def test_an_image_that_the_network_fails_on_costs_no_other(
    with_blip: Callable[..., Recipe],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dark = tmp_path / "dark"
    dark.mkdir()
    for path in pictures.rglob("*.jpg"):
        (dark / path.name).write_bytes(path.read_bytes())
    Image.new("RGB", (96, 96)).save(dark / "black.png")
    call = Blip.__call__

    def fails_on_black(self: Blip, prepared: Any) -> list[str]:
        if any(not image.any() for image in prepared):
            raise FloatingPointError("black")
        return call(self, prepared)

    monkeypatch.setattr(Blip, "__call__", fails_on_black)
    made = run(with_blip(), tmp_path / "d", dark)
    assert made.result.status.rejects == {"failed:FloatingPointError": 1}
    assert made.result.status.samples == len(list(dark.iterdir())) - 1


def test_too_little_memory_names_the_field(
    with_blip: Callable[..., Recipe],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    def full(self: Blip, prepared: Any) -> list[str]:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(Blip, "__call__", full)
    with pytest.raises(BuildError, match=r"lower captions\.batch_size"):
        run(with_blip(), tmp_path / "d", pictures, execution={"retries": 0})


def test_two_signatures_of_one_text_are_told_apart(
    with_blip: Callable[..., Recipe], pictures: Path, tmp_path: Path
) -> None:
    first = run(with_blip(), tmp_path / "a", pictures)
    commits = [json.loads(path.read_text()) for path in (tmp_path / "a" / "commits").iterdir()]
    assert len({commit["environment"]["captions"] for commit in commits}) == 1
    threads = {"network_threads": 2}
    run(with_blip(), tmp_path / "b", pictures, execution=threads)
    for commit in [json.loads(path.read_text()) for path in (tmp_path / "b" / "commits").iterdir()]:
        assert commit["environment"]["captions"] == commits[0]["environment"]["captions"]
        assert commit["environment"]["network_threads"] == "2"
    assert sum(first.batches) > 0


def test_the_cache_on_object_storage_serves_the_second_recipe(
    s3: str, with_blip: Callable[..., Recipe], pictures: Path
) -> None:
    first = run(with_blip(), f"{s3}/sets/a", pictures / "even")
    second = run(with_blip(seed=1), f"{s3}/sets/b", pictures / "even")
    assert sum(first.batches) > 0
    assert sum(second.batches) == 0
    assert second.captions == first.captions


def test_another_condition_is_added_to_a_datasets_images(
    with_blip: Callable[..., Recipe], pictures: Path, tmp_path: Path
) -> None:
    first = run(with_blip(), tmp_path / "a", pictures)
    second = run(lines(), tmp_path / "b", dataset=first.uri)
    assert second.batches == [0] * len(second.batches)
    ours, theirs = Dataset.open(second.uri).view(), Dataset.open(first.uri).view()
    assert ours.table["key"].to_pylist() == theirs.table["key"].to_pylist()
    for at in range(len(ours)):
        one, other = ours.read(at), theirs.read(at)
        assert (one.image, one.caption) == (other.image, other.caption)
        assert (set(one.conditions), set(other.conditions)) == ({"lsd"}, {"canny"})
    assert verify(Dataset.open(second.uri)) == []
    assert not run(lines(), tmp_path / "b", dataset=first.uri).result.changed
    assert not run(lines(), tmp_path / "b").result.changed


def lines(**overrides: Any) -> Recipe:
    fields = {"image.resolution": 64, "samples_per_unit": 4, **overrides}
    detectors = "detectors=[{detector: lsd, condition: lsd}]"
    changes = [f"{key}={json.dumps(value)}" for key, value in fields.items()]
    return load_recipe("canny", [detectors, "captions.captioner=sidecar", *changes])


def test_only_committed_samples_are_taken_and_give_the_bytes_of_a_build_from_the_images(
    pictures: Path, tmp_path: Path
) -> None:
    judged = load_recipe(
        "canny", ["image.resolution=64", "rules.min_side=84", "captions.captioner=sidecar"]
    )
    first = run(judged, tmp_path / "a", pictures)
    assert 0 < first.result.status.samples < 10
    second = run(lines(), tmp_path / "b", dataset=first.uri)
    assert second.result.status.images == second.result.status.samples
    assert second.captions == first.captions
    direct = run(lines(**{"rules.min_side": 84}), tmp_path / "c", pictures)
    samples = [Dataset.open(made.uri).view() for made in (second, direct)]
    for at in range(first.result.status.samples):
        one, other = (view.read(at) for view in samples)
        assert (one.key, one.image, one.conditions) == (other.key, other.image, other.conditions)


def test_what_has_no_caption_in_the_other_dataset_is_captioned(
    with_blip: Callable[..., Recipe], pictures: Path, tmp_path: Path
) -> None:
    first = run(
        load_recipe("canny", ["image.resolution=64", "captions.captioner=sidecar"]),
        tmp_path / "a",
        pictures,
    )
    second = run(with_blip("sidecar_or_blip"), tmp_path / "b", dataset=first.uri)
    assert sum(second.batches) > 0
    for key, caption in second.captions.items():
        assert caption["source"] == ("sidecar" if first.captions[key]["text"] else "blip")
    assert {caption["source"] for caption in second.captions.values()} == {"sidecar", "blip"}


def test_wrong_ways_to_build_from_a_dataset_are_named(
    with_blip: Callable[..., Recipe], pictures: Path, tmp_path: Path
) -> None:
    first = run(
        load_recipe("canny", ["image.resolution=64", "captions.captioner=sidecar"]),
        tmp_path / "a",
        pictures,
    )
    other = run(
        load_recipe("canny", ["image.resolution=64", "captions.captioner=sidecar"]),
        tmp_path / "o",
        pictures / "even",
    )
    with pytest.raises(UsageError, match="would write others"):
        run(with_blip(), tmp_path / "b", dataset=first.uri)
    with pytest.raises(UsageError, match="give one"):
        run(lines(), tmp_path / "b", pictures, dataset=first.uri)
    with pytest.raises(DatasetError, match="no dataset at"):
        run(lines(), tmp_path / "b", dataset=str(tmp_path / "nowhere"))
    run(lines(), tmp_path / "b", dataset=first.uri)
    with pytest.raises(UsageError, match="its plan is frozen"):
        run(lines(), tmp_path / "b", dataset=other.uri)


def test_a_captioner_that_is_not_here_ends_in_one_message(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONTROLNET_FACTORY_WEIGHTS", raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", _nothing)
    recipe = load_recipe("canny", ["image.resolution=64", "captions.captioner=blip"])
    with pytest.raises(UsageError, match="weights fetch blip"):
        run(recipe, tmp_path / "d", pictures)


def _nothing(*_: Any, **__: Any) -> str:
    raise FileNotFoundError("no such snapshot")
