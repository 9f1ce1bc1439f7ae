"""TensorFlow Lite models by LiteRT: on the CPU, one thread, so that the bytes are the same."""

from pathlib import Path
from typing import Any

from detectors.errors import DetectorError


def interpreter(path: Path) -> Any:
    """Load a ``.tflite`` file.

    Raises:
        DetectorError: the package that runs it is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise DetectorError(
            f"{path.name} needs the package ai-edge-litert: "
            "pip install 'controlnet-factory[tflite]'"
        ) from error
    return Interpreter(model_path=str(path), num_threads=1)
