"""ONNX models by ONNX Runtime: in fp32, one thread on a CPU, so that the bytes are the same."""

from pathlib import Path
from typing import Any

import numpy as np

from detectors.errors import DetectorError, WeightsError


class OnnxModel:
    """A model with one input, float32 (b, c, h, w).

    Attributes:
        size: height and width that it takes, in pixels.
        batch: rows at once; None where it takes any number.
        shapes: of its outputs; a size that depends on the input is a name.
    """

    def __init__(self, path: Path, device: str) -> None:
        """Load it.

        Args:
            path: an ``.onnx`` file.
            device: for example ``cpu`` or ``cuda:0``.

        Raises:
            DetectorError: the package that runs it is not installed, or not for this device.
            WeightsError: the file is no such model.
        """
        runtime = _runtime(path)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = runtime.InferenceSession(
                str(path), options, providers=_providers(runtime, device)
            )
        except Exception as error:  # its errors share no base of their own
            why = str(error).partition("\n")[0]
            raise WeightsError(f"{path} cannot be loaded as an ONNX model: {why}") from error
        (taken,) = self._session.get_inputs()
        batch, _, height, width = taken.shape
        self._name = taken.name
        self.size: tuple[int, int] = (height, width)
        self.batch: int | None = batch if isinstance(batch, int) else None
        self.shapes: list[list[int | str]] = [one.shape for one in self._session.get_outputs()]

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return the outputs for float32 (b, c, h, w), stacked along b."""
        step = self.batch or len(pixels)
        assert len(pixels) % step == 0, (len(pixels), step)
        parts = [
            self._session.run(None, {self._name: pixels[at : at + step]})
            for at in range(0, len(pixels), step)
        ]
        return [np.concatenate(several) for several in zip(*parts, strict=True)]


def _runtime(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DetectorError(
            f"{path.name} needs the package onnxruntime: pip install 'controlnet-factory[onnx]', "
            "or onnxruntime-gpu in its place for a GPU"
        ) from error
    onnxruntime.set_default_logger_severity(3)  # errors
    return onnxruntime


def _providers(runtime: Any, device: str) -> list[Any]:
    kind, _, number = device.partition(":")
    if kind == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise DetectorError(
            f"onnxruntime has no provider for {device}: pip uninstall onnxruntime, then "
            "pip install onnxruntime-gpu; or --device cpu"
        )
    return [("CUDAExecutionProvider", {"device_id": int(number or 0), "use_tf32": "0"})]
