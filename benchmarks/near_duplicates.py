"""Near duplicates among millions of hashes: time, memory, and how many planted ones are found.

python -m benchmarks.near_duplicates --count 3000000 --distance 6 [--crowd 50000]
"""

import argparse
import platform
import resource
import time

import numpy as np

from catalog.source.near_duplicates import HASH_BITS, find_near_duplicates


def plant(count: int, distance: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random hashes, and for each the place of the earlier one it is near to, or -1."""
    draws = np.random.Generator(np.random.Philox(seed))
    hashes = draws.integers(0, 2**64, count, dtype=np.uint64)
    originals = round(count * (1 - share))
    near_to = np.full(count, -1)
    near_to[originals:] = draws.integers(0, originals, count - originals)
    hashes[originals:] = hashes[near_to[originals:]]
    for _ in range(distance):  # the same bit twice flips back: distances of 0 to `distance`
        bits = draws.integers(0, HASH_BITS, count - originals).astype(np.uint64)
        hashes[originals:] ^= np.uint64(1) << bits
    return hashes, near_to


def crowd(
    hashes: np.ndarray, near_to: np.ndarray, count: int, distance: int
) -> tuple[np.ndarray, np.ndarray]:
    """Add hashes that all are within half the distance of one, the first of them."""
    draws = np.random.Generator(np.random.Philox(count))
    alike = np.full(count, draws.integers(0, 2**64, dtype=np.uint64))
    for _ in range(distance // 2):
        alike[1:] ^= np.uint64(1) << draws.integers(0, HASH_BITS, count - 1).astype(np.uint64)
    return np.concatenate([hashes, alike]), np.concatenate(
        [near_to, [-1], np.full(count - 1, len(hashes))]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3_000_000)
    parser.add_argument("--distance", type=int, nargs="+", default=[4, 6, 8])
    parser.add_argument("--crowd", type=int, help="besides, how many that all look alike")
    parser.add_argument("--share", type=float, default=0.1, help="of planted near duplicates")
    args = parser.parse_args()
    print(f"{args.count:,} hashes, {args.share:.0%} planted; {platform.machine()}, one thread")
    print(f"numpy {np.__version__}; memory is the process's peak until then")
    for distance in args.distance:
        hashes, near_to = plant(args.count, distance, args.share, seed=distance)
        if args.crowd:
            hashes, near_to = crowd(hashes, near_to, args.crowd, distance)
        start, busy = time.perf_counter(), time.process_time()
        nearest, _ = find_near_duplicates(hashes, distance)
        taken, busy = time.perf_counter() - start, time.process_time() - busy
        planted, found = near_to >= 0, nearest >= 0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"distance {distance}: {taken:.0f} s ({busy:.0f} s of CPU), {peak:.2f} GiB, "
            f"found {np.sum(planted & found):,} of {planted.sum():,} planted, "
            f"{np.sum(found & ~planted):,} others",
            flush=True,
        )


if __name__ == "__main__":
    main()
