"""Every random draw of training, keyed by what it is for.

torch's CPU generator keeps only 32 bits of its seed, so that some of a million samples would share
their noise; Philox has a 128-bit key. A draw depends on nothing but its key: not on the number of
workers or processes, the batch it falls in, or the point a run was resumed from.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float


def keyed_generator(seed: int, purpose: str, index: int) -> np.random.Generator:
    """Return the generator of one draw.

    Args:
        seed: the run's seed.
        purpose: what is drawn, for example ``noise``; other purposes give independent draws.
        index: the global sample index, or the epoch.
    """
    name = f"{purpose}/{seed}/{index}".encode()
    key = int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def keyed_normal(
    seed: int, purpose: str, indices: Sequence[int], shape: tuple[int, ...]
) -> Float[torch.Tensor, "b ..."]:
    """Return standard normal numbers, of `shape` for each index; see `keyed_generator`."""
    rows = [
        keyed_generator(seed, purpose, index).standard_normal(shape, dtype=np.float32)
        for index in indices
    ]
    return torch.from_numpy(np.stack(rows))
