"""Stand-ins for DWPose's two ONNX files: no trained networks, but what a test can foretell.

The first finds the boxes that it was planted with, in pixels of its 640 x 640, as sure as the blue
of the middle pixel of its picture. The second puts every joint on the reddest row and column.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 640
HEIGHT, WIDTH = 384, 288
JOINTS = 133
_STRIDES = (8, 16, 32)

Box = tuple[float, float, float, float, float, int]
"""Left, top, right, bottom, score, class."""


def encode(boxes: list[Box]) -> np.ndarray:
    """Return YOLOX's raw output, float32 (1, cells, 85), that says these boxes."""
    rows = sum((SIDE // step) ** 2 for step in _STRIDES)
    raw = np.zeros((1, rows, 85), np.float32)
    step = _STRIDES[0]
    for left, top, right, bottom, score, kind in boxes:
        x, y = (left + right) / 2 / step, (top + bottom) / 2 / step
        cell = int(y) * (SIDE // step) + int(x)
        while raw[0, cell, 4]:  # another box has its middle there
            cell += 1
        column, row = cell % (SIDE // step), cell // (SIDE // step)
        sides = np.log(np.array([right - left, bottom - top]) / step)
        raw[0, cell, :4] = [x - column, y - row, *sides]
        raw[0, cell, 4] = score
        raw[0, cell, 5 + kind] = 1
    return raw


def save_boxes(path: Path, boxes: list[Box]) -> Path:
    """Save a detector; its scores are multiplied by the first channel of the middle pixel / 255."""
    scale = np.ones((1, 1, 85), np.float32)
    scale[..., 4] = 0
    raw = encode(boxes)
    nodes = [
        helper.make_node("Slice", ["input", "from", "to", "axes"], ["pixel"]),
        helper.make_node("Div", ["pixel", "most"], ["blue"]),
        helper.make_node("Reshape", ["blue", "shape"], ["share"]),
        helper.make_node("Mul", ["raw", "share"], ["scaled"]),
        helper.make_node("Where", ["scores", "scaled", "raw"], ["output"]),
    ]
    middle = SIDE // 2
    constants = {
        "from": np.array([0, middle, middle], np.int64),
        "to": np.array([1, middle + 1, middle + 1], np.int64),
        "axes": np.array([1, 2, 3], np.int64),
        "most": np.array(255, np.float32),
        "shape": np.array([1, 1, 1], np.int64),
        "raw": raw,
        "scores": np.arange(85) == 4,
    }
    return _save(path, nodes, constants, [1, 3, SIDE, SIDE], {"output": list(raw.shape)})


def save_pose(path: Path, joints: int = JOINTS) -> Path:
    """Save a pose network: the first channel's maxima by column and row, twice as fine."""
    nodes = [
        helper.make_node("Slice", ["input", "from", "to", "axis"], ["red"]),
        *_profile("columns", 2, "simcc_x"),
        *_profile("rows", 3, "simcc_y"),
    ]
    constants = {
        "from": np.array([0], np.int64),
        "to": np.array([1], np.int64),
        "axis": np.array([1], np.int64),
        "other_columns": np.array([2], np.int64),
        "other_rows": np.array([3], np.int64),
        "finer": np.array([1, 1, 2], np.float32),
        "none": np.array([], np.float32),
        "joints": np.array([1, joints, 1], np.int64),
    }
    outputs = {"simcc_x": ["batch", joints, 2 * WIDTH], "simcc_y": ["batch", joints, 2 * HEIGHT]}
    return _save(path, nodes, constants, ["batch", 3, HEIGHT, WIDTH], outputs)


def _profile(name: str, axis: int, output: str) -> list[onnx.NodeProto]:
    """Return nodes from the red channel to its maxima along an axis, as SimCC's cells."""
    most = helper.make_node("ReduceMax", ["red", f"other_{name}"], [f"{name}_1"], keepdims=0)
    finer = helper.make_node(
        "Resize", [f"{name}_1", "none", "finer"], [f"{name}_2"], mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    return [most, finer, helper.make_node("Tile", [f"{name}_2", "joints"], [output])]


def _save(path, nodes, constants, taken, given) -> Path:
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in given.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
