"""Peak memory of one worker, over units of 12-megapixel photographs.

    python benchmarks/worker_memory.py [--images FOLDER] [--count 512] [--recipe canny]

Writes --count JPEGs of 4000 x 3000 made of the photographs into a scratch folder, builds them in a
process of its own, and prints that process's peak.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2

if sys.path[0] == str(Path(__file__).parent):
    sys.path.pop(0)  # there benchmarks would hide the packages of their names

from pipeline.demo.photographs import collect

SIZE = (4000, 3000)  # pixels


def write_large(originals: list[Path], folder: Path, count: int) -> None:
    folder.mkdir()
    encoded = []
    for path in originals[: min(len(originals), count)]:
        large = cv2.resize(cv2.imread(str(path)), SIZE, interpolation=cv2.INTER_CUBIC)
        encoded.append(cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
    for number in range(count):
        data = encoded[number % len(encoded)] + str(number).encode()
        (folder / f"{number:05d}.jpg").write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--recipe", default="canny")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--full-decode", action="store_true", help="without JPEG's reduced scales")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if options.images is None:
            collect(folder / "originals")
        found = sorted((options.images or folder / "originals").iterdir())
        write_large([path for path in found if path.suffix != ".txt"], folder / "in", options.count)
        line = [sys.executable, "-m", "pipeline", "build", options.recipe, "--local"]
        line += ["--images", str(folder / "in"), "--out", str(folder / "d")]
        line += ["--threads", str(options.threads)]
        if options.full_decode:
            line += ["--set", "image.reduced_decode=false"]
        start = time.perf_counter()
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f"{options.recipe}, {options.count} JPEGs of {SIZE[0]} x {SIZE[1]}, "
        f"{options.threads} threads: {options.count / seconds:.1f} images/s, peak {peak:,.0f} MiB"
    )


if __name__ == "__main__":
    main()
