import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from training.model.base import fingerprint
from training.model.controlled_block import ControlledBlock, Features, zero_layer

MAPS, TOKENS, VECTORS = (2, 8, 6, 6), (2, 5, 8), (2, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    block: Callable[[], nn.Module]
    features: Features
    x: tuple[int, ...]
    condition: tuple[int, ...]
    out_channels: int = 8
    others: tuple[tuple[int, ...], ...] = ()


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normal = self.norm(x)
        return x + self.attention(normal, normal, normal)[0]


CASES = {
    "conv": Case(
        block=lambda: nn.Conv2d(8, 8, 3, padding=1),
        features="maps",
        x=MAPS,
        condition=MAPS,
    ),
    "conv, normalised over the batch, halving": Case(
        block=lambda: nn.Sequential(
            nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.BatchNorm2d(12), nn.ReLU()
        ),
        features="maps",
        x=MAPS,
        condition=(2, 3, 6, 6),
        out_channels=12,
    ),
    "diffusers' resnet block with a time embedding": Case(
        block=lambda: ResnetBlock2D(in_channels=8, out_channels=16, temb_channels=4, groups=4),
        features="maps",
        x=MAPS,
        condition=MAPS,
        out_channels=16,
        others=((2, 4),),
    ),
    "attention": Case(block=Attention, features="vectors", x=TOKENS, condition=(2, 5, 3)),
    "diffusers' transformer block": Case(
        block=lambda: BasicTransformerBlock(8, 2, 4, dropout=0.1),
        features="vectors",
        x=TOKENS,
        condition=TOKENS,
    ),
    "linear": Case(
        block=lambda: nn.Sequential(nn.Linear(8, 8), nn.Tanh()),
        features="vectors",
        x=VECTORS,
        condition=(2, 3),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    block: nn.Module
    controlled: ControlledBlock
    x: torch.Tensor
    condition: torch.Tensor
    others: list[torch.Tensor]

    def run(self) -> torch.Tensor:
        return self.controlled(self.x, self.condition, *self.others)

    def loss(self) -> torch.Tensor:
        return ((self.run() - 1) ** 2).mean()


@pytest.fixture(params=CASES.values(), ids=CASES)
def scene(request) -> Scene:
    case = request.param
    torch.manual_seed(0)
    block = case.block().eval()
    channel = 1 if case.features == "maps" else -1
    controlled = ControlledBlock(
        copy.deepcopy(block),
        features=case.features,
        channels=case.x[channel],
        out_channels=case.out_channels,
        condition_channels=case.condition[channel],
    )
    others = [torch.randn(shape) for shape in case.others]
    x, condition = torch.randn(case.x), torch.randn(case.condition)
    return Scene(block=block, controlled=controlled, x=x, condition=condition, others=others)


def names_with_gradients(network: nn.Module) -> set[str]:
    return {
        name
        for name, weight in network.named_parameters()
        if weight.grad is not None and weight.grad.count_nonzero() > 0
    }


@pytest.mark.parametrize("training", [True, False])
def test_an_untrained_copy_changes_nothing(scene, training):
    scene.controlled.train(training)
    assert torch.equal(scene.run(), scene.block(scene.x, *scene.others))


def test_the_copy_starts_as_the_block_and_sees_only_x(scene):
    controlled = scene.controlled.eval()
    hidden = scene.x + controlled.zero_in(scene.condition)
    assert torch.equal(hidden, scene.x)
    copied, original = (net(hidden, *scene.others) for net in (controlled.trainable, scene.block))
    assert torch.equal(copied, original)
    assert not controlled.zero_out(copied).any()


def test_only_the_last_zero_convolution_learns_first_then_the_copy(scene):
    controlled = scene.controlled.train()
    optimizer = torch.optim.SGD([w for w in controlled.parameters() if w.requires_grad], lr=0.1)
    reached = []
    for _ in range(2):
        optimizer.zero_grad()
        scene.loss().backward()
        reached.append(names_with_gradients(controlled))
        optimizer.step()
    assert reached[0] == {"zero_out.weight", "zero_out.bias"}
    assert reached[1] >= {"zero_out.weight", "zero_in.weight", "zero_in.bias"}
    assert any(name.startswith("trainable.") for name in reached[1])
    assert not any(name.startswith("locked.") for name in reached[1])


def test_training_leaves_the_locked_copy_alone_and_lets_the_condition_in(scene):
    controlled = scene.controlled.train()
    locked = fingerprint([controlled.locked])
    optimizer = torch.optim.AdamW(controlled.parameters(), lr=1e-2)
    before = float(scene.loss().detach())
    for _ in range(20):
        optimizer.zero_grad()
        scene.loss().backward()
        optimizer.step()
    assert fingerprint([controlled.locked]) == locked == fingerprint([scene.block])
    controlled.eval()
    assert float(scene.loss().detach()) < before
    other = controlled(scene.x, -scene.condition, *scene.others)
    assert not torch.allclose(scene.run(), other)


def test_gradients_pass_through_to_the_blocks_before(scene):
    x = scene.x.clone().requires_grad_(True)
    scene.controlled(x, scene.condition, *scene.others).sum().backward()
    alone = scene.x.clone().requires_grad_(True)
    scene.block(alone, *scene.others).sum().backward()
    assert torch.allclose(x.grad, alone.grad, atol=1e-6)  # zero weights close the copy's path


def as_rows(features: Features, tensor: torch.Tensor) -> torch.Tensor:
    """Return positions x channels."""
    return (tensor.movedim(1, -1) if features == "maps" else tensor).flatten(0, -2)


@settings(max_examples=20, deadline=None)
@given(
    features=st.sampled_from(["maps", "vectors"]),
    channels=st.integers(1, 5),
    out=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_gradients_of_a_zero_convolution_are_equations_5_to_8(features, channels, out, seed):
    """dZ/dB = 1, dZ/dI = W = 0, dZ/dW = I; after a step of SGD, W* = -lr dL/dZ I and dZ/dI = W*."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, channels, 3, 4) if features == "maps" else (2, 3, channels)
    signal = torch.randn(shape, generator=generator, requires_grad=True)
    layer = zero_layer(features, channels, out)
    outside = torch.randn(layer(signal).shape, generator=generator)  # dL/dZ

    assert not layer(signal).any()
    (layer(signal) * outside).sum().backward()

    slopes, inputs = as_rows(features, outside), as_rows(features, signal.detach())
    expected = slopes.T @ inputs
    weight_slope = layer.weight.grad.reshape(out, channels)
    assert torch.allclose(layer.bias.grad, slopes.sum(0), atol=1e-5)
    assert torch.allclose(weight_slope, expected, atol=1e-5)
    assert expected.any()
    assert not signal.grad.any()

    torch.optim.SGD(layer.parameters(), lr=0.5).step()
    stepped = layer.weight.detach().reshape(out, channels)
    assert torch.allclose(stepped, -0.5 * expected, atol=1e-5)
    signal.grad = None
    (layer(signal) * outside).sum().backward()
    assert torch.allclose(as_rows(features, signal.grad), slopes @ stepped, atol=1e-5)
    assert signal.grad.any()
