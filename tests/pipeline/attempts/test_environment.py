"""What may move a bit stands in a commit's environment."""

from pathlib import Path

import pytest

from catalog.dataset.commits import UNKNOWN, is_same_environment
from pipeline.attempts import processor
from pipeline.attempts.environment import environment, micro_batch, without
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import load_recipe


def test_a_gpus_arithmetic_is_part_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier version made there with TF32 is another environment's, and no alarm."""
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a GPU")
    there = environment(load_recipe("hed"), Execution(device="cuda"))
    assert (there["device"], there["precision"]) == ("a GPU", "fp32")
    assert there["convolutions"] == "as stated, deterministic"
    here = environment(load_recipe("hed"), Execution())
    assert "convolutions" not in here


@pytest.fixture
def forgetful() -> None:
    """Ask for the CPU anew, before the test and by whoever comes after it."""
    processor.model.cache_clear()


@pytest.mark.usefixtures("forgetful")
def test_another_cpu_is_another_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Libraries choose their kernels by it, at one and the same instruction set."""
    request.addfinalizer(processor.model.cache_clear)
    told = []
    for number, name in enumerate(["Intel(R) Xeon(R) 8488C", "AMD EPYC 9R14"]):
        cpuinfo = tmp_path / f"cpuinfo-{number}"
        cpuinfo.write_text(f"processor\t: 0\nmodel name\t: {name}\ncpu MHz\t\t: {number}\n\n" * 2)
        monkeypatch.setattr(processor, "_CPUINFO", cpuinfo)
        processor.model.cache_clear()
        told.append(environment(load_recipe("canny"), Execution()))
        assert told[-1]["cpu"] == name
    assert not is_same_environment(*told)


def test_the_instruction_sets_that_opencv_found_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cv2.getCPUFeaturesLine", lambda: "SSE SSE2 *AVX2 *AVX512-SKX?")
    processor.instructions.cache_clear()
    assert processor.instructions() == "SSE SSE2 AVX2"
    processor.instructions.cache_clear()


def test_the_libraries_that_make_bytes_are_told() -> None:
    drawn = environment(load_recipe("canny"), Execution())
    assert {"numpy", "opencv", "pillow", "libjpeg_turbo"} <= drawn.keys()
    assert "torch" not in drawn  # not asked where no network runs
    run = environment(load_recipe("hed"), Execution())
    assert {"torch", "torchvision", "transformers", "kernels", "network_threads"} <= run.keys()


def test_what_is_not_known_is_not_equal() -> None:
    """A micro-batch that fell somewhere in a unit may have fallen elsewhere in another attempt."""
    assert micro_batch(8, 8) == {"micro_batch": "8"}
    fell = micro_batch(8, 4)
    assert fell["micro_batch"].startswith(UNKNOWN)
    assert not is_same_environment(fell, fell)


def test_images_left_alone_are_part_of_the_environment() -> None:
    assert without([]) == {}
    assert without(["b" * 64, "a" * 64]) == without(["a" * 64, "b" * 64]) != without(["a" * 64])
