"""Ground truth that lies beside images: class ids or normals, one array an image.

A label has the path of its image, with another suffix: COCO-Stuff's and ADE20K's PNGs in a folder
tree of their own, DIODE's ``_normal.npy`` in the image's folder.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image as PILImage

from catalog import storage
from catalog.errors import ImageError, of_the_place
from catalog.images import FORMATS, Crop, target_size
from catalog.sample import sha256_hex


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Where labels lie.

    Attributes:
        suffix: replaces the image's, for example ``.png`` or ``_normal.npy``.
        root: folder whose tree mirrors the images'; None where labels lie beside the images.
    """

    suffix: str
    root: str | None = None


def read_label(uri: str, sha256: str, size: tuple[int, int]) -> np.ndarray:
    """Read a label: ``.npy`` as it is; of a picture its one channel, or its palette's indices.

    Args:
        uri: of the label.
        sha256: of its bytes when it was scanned.
        size: width and height of its image as found; a picture of another size is not decoded.

    Raises:
        ImageError: rule ``label``: it changed since the scan, has another size, or is no such file.
    """
    data = storage.read_bytes(uri)
    if sha256_hex(data) != sha256:
        raise ImageError("label", f"{uri} changed after it was scanned")
    try:
        if uri.endswith(".npy"):
            return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
        with PILImage.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_size(*picture.size, size)
            picture.load()
            found = np.asarray(picture)
    except ImageError:
        raise
    except Exception as error:  # Pillow's plugins and numpy raise a dozen types on broken data
        if of_the_place(error):
            raise
        raise ImageError("label", f"{uri} is no label: {error}") from error
    if found.ndim != 2:
        raise ImageError("label", f"{uri} has {found.shape[2]} channels, expected one of class ids")
    return found


def fit_label(
    label: np.ndarray, *, width: int, height: int, resolution: int, crop: Crop
) -> np.ndarray:
    """Crop and resize a label as `catalog.images.fit` does its image; takes nearest neighbours.

    Args:
        label: (h, w) or (h, w, channels).
        width: the image's as found; pixels.
        height: the image's as found; pixels.
        resolution: as for the image.
        crop: as for the image.

    Raises:
        ImageError: rule ``label``: it has not the image's size.
    """
    _check_size(label.shape[1], label.shape[0], (width, height))
    if crop == "center":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        label = label[top : top + side, left : left + side]
    columns, rows = target_size(width, height, resolution=resolution, crop=crop)
    fitted: np.ndarray = label[_nearest(label.shape[0], rows)][:, _nearest(label.shape[1], columns)]
    return fitted


def _check_size(width: int, height: int, wanted: tuple[int, int]) -> None:
    if (width, height) != wanted:
        raise ImageError(
            "label", f"the label is {width}x{height}, its image {wanted[0]}x{wanted[1]}"
        )


def _nearest(have: int, want: int) -> np.ndarray:
    """Return which of `have` positions lies under the centre of each of `want`."""
    return ((np.arange(want) + 0.5) * have / want).astype(np.int64)
