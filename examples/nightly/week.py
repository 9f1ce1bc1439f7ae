"""A week of nights on drawn shapes: what comes, changes and goes, kills, and a double start.

    python examples/nightly/week.py --out week [--photographs FOLDER]
    python examples/nightly/week.py --out week --storage s3://BUCKET/week --submit

Each night is the command `rebuild`, in a process of its own or, with --submit, as a job of the Ray
cluster of RAY_API_SERVER_ADDRESS on this machine; one is killed in each of its stages. With
--storage the source and what the schedule keeps lie there. At the end the dataset is compared with
one that is built at once from the final source. It prints a line for each night, and ends with an
error where something is not as it should be.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from catalog import storage, tables
from catalog.dataset.dataset import Dataset
from pipeline.retrain.night import STAGES
from pipeline.retrain.promotions import current

ROOT = Path(__file__).parents[2]
SHAPES = ROOT / "examples" / "shapes"
SUBMIT = ROOT / "examples" / "cluster" / "submit.sh"
HELD = "holds it since|at the same moment"
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
    parser.add_argument("--storage", help="URI of an empty folder; default below --out")
    parser.add_argument("--submit", action="store_true", help="do the nights as jobs of Ray")
    given = parser.parse_args()
    folder = given.out.absolute()
    Week(folder, given.photographs, given.storage or str(folder), submit=given.submit).run()


class Week:
    """The nights, and what happens to the source between them."""

    def __init__(self, folder: Path, photographs: Path | None, where: str, *, submit: bool) -> None:
        """Draw the pictures and write nightly.yaml."""
        folder.mkdir(parents=True)
        self._folder, self._source = folder, folder / "source"
        self._where, self._submit = where, submit
        self._drawn = folder / "drawn"
        draw = [str(SHAPES / "draw.py"), "--out", str(self._drawn)]
        subprocess.run([sys.executable, *draw, "--count", str(PICTURES + 3 * MORE)], check=True)
        self._uploaded: dict[str, bytes] = {}
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
        self._upload()
        begun = time.monotonic()
        started = self._start(name)
        said, _ = started.communicate()
        self._check(name, started.returncode, said, outcome, begun)

    def _killed_in_each_stage(self, name: str) -> None:
        """Kill a night when each of its stages begins, and go on.

        Of a job of Ray one hears a second late: short stages may be done before the kill comes.
        """
        self._upload()
        killed = []
        for stage in STAGES:
            if storage.exists(
                storage.join(self._where, "nightly", "nights", name, f"{stage}.json")
            ):
                continue
            started = self._start(name)
            assert started.stdout is not None
            said = []
            for line in started.stdout:
                said.append(line)
                if line.strip() == f"stage: {stage}":
                    self._kill(name)
                    killed.append(stage)
                    break
            else:
                raise AssertionError(f"no stage {stage}:\n{''.join(said)}")
            started.communicate()
            time.sleep(LAPSE + 1)
        print(f"{name}: killed in {', '.join(killed)}", flush=True)
        assert self._submit or killed == list(STAGES), killed
        self._night(name, "promoted")

    def _twice(self, name: str) -> None:
        """Start a night twice at once: one does the work, the other is refused."""
        self._upload()
        begun = time.monotonic()
        started = [self._start(name) for _ in range(2)]
        ended = [(one.communicate()[0], one.returncode) for one in started]
        ended.sort(key=lambda one: one[1])
        assert [code for _, code in ended] == [0, 1], ended
        (done, _), (refused, _) = ended
        why = next(line for line in refused.splitlines() if re.search(HELD, line))
        print(f"{name}, second start: {why.strip()}")
        self._check(name, 0, done, "promoted", begun)

    def _check(self, name: str, code: int, said: str, outcome: str, begun: float) -> None:
        assert code in (0, 3), said
        told = json.loads([line for line in said.splitlines() if line.startswith("{")][-1])
        seconds = time.monotonic() - begun
        print(
            f"{name}: {told['outcome']}, {told['samples']} samples, {seconds:.0f} s. {told['why']}",
            flush=True,
        )
        assert told["outcome"] == outcome, told

    def _start(self, night: str) -> "subprocess.Popen[str]":
        rebuild = ["rebuild", "--config", str(self._config), "--run-id", night]
        command = [str(SUBMIT), *rebuild]
        if not self._submit:
            command = [sys.executable, "-m", "pipeline", *rebuild, "--local"]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )

    def _kill(self, night: str) -> None:
        """Kill the night's own process, and not what a cluster runs for it."""
        ends = {("--run-id", night), (night, "--local")}
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            is_night = words[1:4] == ["-m", "pipeline", "rebuild"] and tuple(words[-2:]) in ends
            if is_night and str(self._config) in words:
                process.kill()

    def _upload(self) -> None:
        """Make the storage's source as the local one is."""
        if self._where == str(self._folder):
            return
        there = storage.join(self._where, "source")
        ours = {
            path.relative_to(self._source).as_posix(): path.read_bytes()
            for path in self._source.rglob("*")
            if path.is_file()
        }
        known = {name: data for name, data in self._uploaded.items() if ours.get(name) == data}
        for name in self._uploaded.keys() - ours.keys():
            storage.remove(storage.join(there, name))
        for name in ours.keys() - known.keys():
            storage.write_atomic(storage.join(there, name), ours[name])
        self._uploaded = ours

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
        images = storage.join(self._where, "source")
        command = ["build", "canny", "--local", "--images", images]
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
            for sha256 in tables.read_table(ours.path(name), ["sha256"])["sha256"].to_pylist()
        )
        again = sum(count > 1 for count in planned.values())
        print(f"{len(planned)} images were annotated, {again} again as their captions changed")
        assert again == 10, again

    def _dataset(self) -> Dataset:
        promoted = current(storage.join(self._where, "nightly"))
        assert promoted is not None
        return Dataset.open(promoted.dataset)

    def _schedule(self) -> dict[str, Any]:
        probes = {"probe_every": STEPS, "probe_steps": 5, "probe_samples": 4, "probe_guidance": 1}
        return {
            "folder": storage.join(self._where, "nightly"),
            "runs": str(self._folder / "runs"),
            "recipe": "canny",
            "set": RECIPE,
            "images": [storage.join(self._where, "source")],
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
