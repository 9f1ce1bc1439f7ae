"""A week of nights on drawn shapes: what comes, changes and goes, kills, and a double start.

    python examples/nightly/week.py --out week [--photographs FOLDER]

Each night is the command `rebuild`, in a process of its own; one is killed in each of its
stages. At the end the dataset is compared with one that is built at once from the final source. It
prints a line for each night, and ends with an error where something is not as it should be.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from catalog.dataset.dataset import Dataset
from pipeline.retrain.night import STAGES
from pipeline.retrain.promotions import current

ROOT = Path(__file__).parents[2]
SHAPES = ROOT / "examples" / "shapes"
LAPSE = 2  # seconds until a killed night is taken over
PICTURES, MORE = 240, 40
STEPS = 40
RECIPE = [
    *("image.resolution=64", "image.format=png", "samples_per_unit=64"),
    *("rules.min_sharpness=0", "rules.min_chroma=0", "captions.captioner=sidecar"),
]


def main() -> None:
    """Do the week."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="an empty folder")
    parser.add_argument("--photographs", type=Path, help="pictures that are there from the start")
    arguments = parser.parse_args()
    Week(arguments.out.absolute(), arguments.photographs).run()


class Week:
    """The nights, and what happens to the source between them."""

    def __init__(self, folder: Path, photographs: Path | None) -> None:
        """Draw the pictures and write nightly.yaml."""
        folder.mkdir(parents=True)
        self._folder, self._source = folder, folder / "source"
        self._drawn = folder / "drawn"
        draw = [str(SHAPES / "draw.py"), "--out", str(self._drawn)]
        subprocess.run([sys.executable, *draw, "--count", str(PICTURES + 3 * MORE)], check=True)
        self._left = sorted(self._drawn.glob("*.png"))
        self._source.mkdir()
        self._add(PICTURES)
        if photographs is not None:
            shutil.copytree(photographs, self._source / "photographs")
        self._config = folder / "nightly.yaml"
        self._config.write_text(json.dumps(self._schedule()))

    def run(self) -> None:
        """Do the nights in order."""
        begun = time.monotonic()
        self._night("1-monday", "promoted")
        self._add(MORE)
        self._killed_in_each_stage("2-tuesday")
        self._night("3-wednesday", "nothing new")
        self._edit()
        self._night("4-thursday", "promoted")
        self._take_down()
        self._twice("5-friday")
        self._poison()
        self._night("6-saturday", "refused")
        shutil.rmtree(self._source / "poison")
        self._add(MORE)
        self._night("7-sunday", "promoted")
        self._compare()
        print(f"the week took {time.monotonic() - begun:.0f} s")

    def _night(self, name: str, outcome: str) -> None:
        begun = time.monotonic()
        done = subprocess.run(self._command(name), capture_output=True, text=True, check=False)
        self._check(name, done.returncode, done.stdout, done.stderr, outcome, begun)

    def _killed_in_each_stage(self, name: str) -> None:
        """Kill a night when each of its stages begins, and go on."""
        killed = []
        for stage in STAGES:
            process = subprocess.Popen(self._command(name), stderr=subprocess.PIPE, text=True)
            assert process.stderr is not None
            if any(line.strip() == f"stage: {stage}" for line in process.stderr):
                process.kill()
                killed.append(stage)
            process.wait()
            time.sleep(LAPSE + 1)
        print(f"{name}: killed in {', '.join(killed)}")
        assert killed == list(STAGES), killed
        self._night(name, "promoted")

    def _twice(self, name: str) -> None:
        """Start a night twice at once: one does the work, the other is refused."""
        begun = time.monotonic()
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started = [subprocess.Popen(self._command(name), **pipes) for _ in range(2)]
        ended = [(process.communicate(), process.returncode) for process in started]
        codes = sorted(code for _, code in ended)
        assert codes == [0, 1], ended
        ((_, told),) = [said for said, code in ended if code == 1]
        print(f"{name}, second start: {told.strip().splitlines()[-1]}")
        ((out, err),) = [said for said, code in ended if code == 0]
        self._check(name, 0, out, err, "promoted", begun)

    def _check(self, name: str, code: int, out: str, err: str, outcome: str, begun: float) -> None:
        assert code in (0, 3), err
        told = json.loads(out.splitlines()[-1])
        seconds = time.monotonic() - begun
        print(
            f"{name}: {told['outcome']}, {told['samples']} samples, {seconds:.0f} s. {told['why']}"
        )
        assert told["outcome"] == outcome, told

    def _add(self, count: int) -> None:
        for picture in [self._left.pop() for _ in range(count)]:
            for path in (picture, picture.with_suffix(".txt")):
                shutil.copyfile(path, self._source / path.name)

    def _edit(self) -> None:
        """Change captions, put other pictures in the place of some, and delete some."""
        pictures = sorted(self._source.glob("*.png"))
        for picture in pictures[:10]:
            picture.with_suffix(".txt").write_text("a picture with another caption")
        for picture in pictures[10:20]:
            shutil.copyfile(self._left.pop(), picture)
        for picture in pictures[20:35]:
            picture.unlink()
            picture.with_suffix(".txt").unlink()

    def _take_down(self) -> None:
        keys = self._dataset().view().keys()[:10]
        (self._folder / "removals.txt").write_text("\n".join(keys))

    def _poison(self) -> None:
        """Add what a broken export leaves: files that are no pictures."""
        (self._source / "poison").mkdir()
        for number in range(MORE):
            path = self._source / "poison" / f"{number}.jpg"
            path.write_bytes(b"\xff\xd8\xff" + bytes([number]) * 64)

    def _compare(self) -> None:
        """Compare with a dataset that is built at once, and count what was done twice."""
        at_once = self._folder / "at-once"
        command = ["build", "canny", "--local", "--images", str(self._source)]
        command += ["--out", str(at_once)]
        for setting in RECIPE:
            command += ["--set", setting]
        subprocess.run(
            [sys.executable, "-m", "pipeline", *command], check=True, capture_output=True
        )
        ours, theirs = self._dataset(), Dataset.open(str(at_once))
        removed = set((self._folder / "removals.txt").read_text().split())
        expected = [row for row in theirs.view().table.to_pylist() if row["key"] not in removed]
        names = ("key", "block_sha256", "caption")
        found = [[row[name] for name in names] for row in ours.view().table.to_pylist()]
        assert found == [[row[name] for name in names] for row in expected]
        assert ours.view("100").keys() == [row["key"] for row in expected][:100]
        print(f"the same {len(found)} samples, byte for byte, as built at once")
        planned = Counter(
            sha256
            for name in ours.plans.names
            for sha256 in pq.read_table(ours.path(name), columns=["sha256"])["sha256"].to_pylist()
        )
        again = sum(count > 1 for count in planned.values())
        print(f"{len(planned)} images were annotated, {again} again as their captions changed")
        assert again == 10, again

    def _dataset(self) -> Dataset:
        promoted = current(str(self._folder / "nightly"))
        assert promoted is not None
        return Dataset.open(promoted.dataset)

    def _command(self, night: str) -> list[str]:
        rebuild = ["rebuild", "--config", str(self._config), "--local", "--run-id", night]
        return [sys.executable, "-m", "pipeline", *rebuild]

    def _schedule(self) -> dict[str, Any]:
        probes = {"probe_every": STEPS, "probe_steps": 5, "probe_samples": 4, "probe_guidance": 1}
        return {
            "folder": str(self._folder / "nightly"),
            "recipe": "canny",
            "set": RECIPE,
            "images": [str(self._source)],
            "removals": str(self._folder / "removals.txt"),
            "subsets": ["100"],
            "latents": {},
            "train": {
                "base": str(SHAPES / "base"),
                "steps": STEPS,
                "batch_size": 16,
                "learning_rate": 1e-3,
                "checkpoint_every": 10,
                **probes,
            },
            "measure": {"samples": 8, "seeds": [0, 1], "steps": 5, "guidance": 1},
            "gate": {"adherence_margin": 0.5},  # so few steps scatter
            "lease_lapses_after": LAPSE,
        }


if __name__ == "__main__":
    main()
