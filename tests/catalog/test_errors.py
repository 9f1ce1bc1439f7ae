"""Each error is of an image or of the place; when in doubt, it is the place's."""

import errno
import os

import cv2
import pytest
import torch

from catalog.errors import DatasetError, ImageError, StorageError, StorageUnavailable, of_the_place
from detectors.errors import WeightsError


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def system(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    "error",
    [
        *map(system, (errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOSPC, errno.ENOENT)),
        FileNotFoundError("s3://bucket/gone"),  # s3fs gives no number
        PermissionError("Access Denied"),
        ConnectionResetError(),
        TimeoutError(),
        StorageUnavailable("s3://bucket: no answer"),
        DatasetError("the dataset whose maps are reused is not here"),
        MemoryError(),
        ModuleNotFoundError("No module named 'timm'"),
        WeightsError("no checkpoint"),
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("CUDA error: an illegal memory access"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        cv2.error("OpenCV(5.0): (-4:Insufficient memory) Failed to allocate 9 bytes"),
        caused(ValueError("no edges"), RuntimeError("CUDA error: unknown error")),
        caused(StorageError("cannot use 's3://x'"), ImportError("Install s3fs")),
    ],
)
def test_of_the_place(error: Exception) -> None:
    assert of_the_place(error)


@pytest.mark.parametrize(
    "error",
    [
        ImageError("damaged", "cannot decode"),
        OSError("image file is truncated (3 bytes not processed)"),  # Pillow's, without a number
        system(errno.ENAMETOOLONG),
        system(errno.EISDIR),
        StorageError("a pipe or a device"),
        ZeroDivisionError(),
        FloatingPointError("the detector fails on this picture"),
        RuntimeError("no person in the hip region"),
        ValueError("cuda_cat.png is odd"),
        cv2.error("OpenCV(5.0): (-215:Assertion failed) !_src.empty()"),
        caused(ImageError("damaged", "cannot decode"), OSError("broken data stream")),
    ],
)
def test_of_the_image(error: Exception) -> None:
    assert not of_the_place(error)
