"""BLIP at work, beside transformers' own processor and generate, on one set of random weights."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captioning.blip import BlipSpec
from captioning.blip_network import Blip
from captioning.errors import WeightsError
from captioning.on_torch import stated
from tests.random_blip import save_random_blip

SIZES = [(96, 128), (64, 64), (512, 384), (40, 200), (17, 31), (32, 32)]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Noise, smooth pictures, black and white, of several sizes."""
    draw = np.random.default_rng(3)
    made = [draw.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    ramp = np.linspace(0, 255, 96 * 80 * 3).reshape(96, 80, 3).astype(np.uint8)
    return [*made, ramp, ramp[::-1].copy(), np.zeros_like(ramp), np.full_like(ramp, 255)]


@pytest.fixture(scope="module")
def theirs(random_blip: Path) -> tuple[Any, Any]:
    from transformers import (
        AutoTokenizer,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    tokenizer = AutoTokenizer.from_pretrained(random_blip)
    processor = BlipProcessor(BlipImageProcessor.from_pretrained(random_blip), tokenizer)
    return processor, BlipForConditionalGeneration.from_pretrained(random_blip).eval()


def captions(blip: Blip, images: list[np.ndarray]) -> list[str]:
    return blip([blip.prepare(image) for image in images])


def test_a_gpu_computes_in_the_precision_that_is_stated() -> None:
    cudnn = torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.deterministic
    for precision, products, tf32 in (("fp32", "highest", False), ("tf32", "high", True)):
        with stated(precision, "cuda"):
            assert torch.get_float32_matmul_precision() == products
            assert (cudnn.allow_tf32, cudnn.deterministic) == (tf32, True)
        assert (torch.get_float32_matmul_precision(), cudnn.allow_tf32) == before[:2]
    assert cudnn.deterministic == before[2]


def test_pixel_values_are_those_of_transformers_processor(
    random_blip: Path, images: list[np.ndarray], theirs: tuple[Any, Any]
) -> None:
    blip = Blip(random_blip, "cpu")
    for image in images:
        ours = blip.pixel_values(blip.prepare(image)[None])
        expected = theirs[0].image_processor(image, return_tensors="pt").pixel_values
        assert torch.allclose(ours, expected, rtol=0, atol=1e-6)


def test_pixel_values_are_those_of_the_pillow_processor_to_two_levels(
    random_blip: Path, images: list[np.ndarray]
) -> None:
    from transformers import BlipImageProcessorPil

    processor = BlipImageProcessorPil.from_pretrained(random_blip)
    blip = Blip(random_blip, "cpu")
    two_levels = 2 / 255 / min(processor.image_std) + 1e-6
    for image in images:
        ours = blip.pixel_values(blip.prepare(image)[None])
        expected = torch.as_tensor(processor(image, return_tensors="pt").pixel_values)
        assert torch.allclose(ours, expected, rtol=0, atol=two_levels)


@pytest.mark.parametrize(("beams", "prefix"), [(1, ""), (3, ""), (1, "a red"), (2, "a")])
def test_texts_are_those_of_transformers_one_image_at_a_time(
    random_blip: Path, images: list[np.ndarray], theirs: tuple[Any, Any], beams: int, prefix: str
) -> None:
    ours = captions(Blip(random_blip, "cpu", beams=beams, prefix=prefix), images)
    processor, model = theirs
    for image, text in zip(images, ours, strict=True):
        inputs = processor(images=image, text=prefix or None, return_tensors="pt")
        tokens = model.generate(**inputs, num_beams=beams, max_new_tokens=20, do_sample=False)
        assert text == processor.decode(tokens[0], skip_special_tokens=True)
        assert text.startswith(prefix)
    assert len(set(ours)) > len(ours) // 2  # the pictures are told apart


def test_a_text_does_not_depend_on_its_company(random_blip: Path, images: list[np.ndarray]) -> None:
    blip = Blip(random_blip, "cpu", batch_size=4)
    alone = [captions(blip, [image])[0] for image in images]
    draw = np.random.default_rng(0)
    for _ in range(5):
        chosen = draw.choice(len(images), size=draw.integers(1, 5), replace=False)
        assert captions(blip, [images[at] for at in chosen]) == [alone[at] for at in chosen]


def test_scores_do_not_move_by_a_bit_with_their_company(
    random_blip: Path, images: list[np.ndarray]
) -> None:
    blip = Blip(random_blip, "cpu", batch_size=4)
    prepared = [blip.prepare(image) for image in images[:5]]

    @torch.inference_mode()
    def hidden(*places: int) -> torch.Tensor:
        pixels = blip.pixel_values(torch.stack([prepared[at] for at in places]))
        return blip._model.vision_model(pixel_values=pixels).last_hidden_state

    assert torch.equal(hidden(0, 1, 2, 3)[0], hidden(4, 3, 0, 0)[2])


def test_fused_attention_gives_transformers_hidden_states(
    random_blip: Path, images: list[np.ndarray], theirs: tuple[Any, Any]
) -> None:
    blip = Blip(random_blip, "cpu")
    pixels = blip.pixel_values(torch.stack([blip.prepare(image) for image in images]))
    with torch.inference_mode():
        ours = blip._model.vision_model(pixel_values=pixels).last_hidden_state
        expected = theirs[1].vision_model(pixel_values=pixels).last_hidden_state
    assert torch.allclose(ours, expected, atol=1e-5)


def test_fewer_tokens_and_bf16_are_obeyed(random_blip: Path, images: list[np.ndarray]) -> None:
    short = captions(Blip(random_blip, "cpu", max_new_tokens=3), images)
    assert max(len(text.split()) for text in short) == 3
    low = Blip(random_blip, "cpu", precision="bf16")
    assert low._model.dtype is torch.bfloat16
    assert captions(low, images) != captions(Blip(random_blip, "cpu"), images)


def test_the_spec_loads_what_it_says(random_blip: Path, images: list[np.ndarray]) -> None:
    spec = BlipSpec(captioner="blip", model=str(random_blip), prefix="a", max_new_tokens=4)
    network = spec.load("cpu")
    texts = network([network.prepare(image) for image in images])
    assert texts == captions(Blip(random_blip, "cpu", prefix="a", max_new_tokens=4), images)


@pytest.mark.parametrize("tied", [True, False])
def test_weights_in_the_older_file_are_the_same(
    random_blip: Path, images: list[np.ndarray], tmp_path: Path, tied: bool
) -> None:
    """As the hub has them: pickled, with or without a second name for a shared tensor."""
    from transformers import BlipForConditionalGeneration

    for path in random_blip.glob("*.json"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    state = BlipForConditionalGeneration.from_pretrained(random_blip).state_dict()
    second = [name for name in state if "cls.predictions.decoder" in name]
    assert second
    kept = {name: state[name] for name in state if tied or name not in second}
    torch.save(kept, tmp_path / "pytorch_model.bin")
    expected = captions(Blip(random_blip, "cpu"), images)
    assert captions(Blip(tmp_path, "cpu"), images) == expected


def test_missing_tensors_are_an_error_and_never_random(random_blip: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in random_blip.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    lost = tensors.pop("vision_model.embeddings.patch_embedding.weight")
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(WeightsError, match=r"no whole BLIP captioner: 1 .*patch_embedding"):
        Blip(tmp_path, "cpu")
    tensors["vision_model.embeddings.patch_embedding.weight"] = lost[:, :, :4, :4].contiguous()
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(WeightsError, match=str(tmp_path)):
        Blip(tmp_path, "cpu")
    weights.write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="cannot be loaded as BLIP"):
        Blip(tmp_path, "cpu")


def test_another_model_is_refused(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    save_random_blip(tmp_path)
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    config = CLIPConfig(
        text_config={**small, "num_attention_heads": 1, "vocab_size": 9},
        vision_config={**small, "num_attention_heads": 1, "image_size": 8, "patch_size": 4},
    )
    CLIPModel(config).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=str(tmp_path)):
        Blip(tmp_path, "cpu")
