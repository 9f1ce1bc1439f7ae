"""The benchmark of a card runs, every line of it, without one."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu, gpu_sections
from benchmarks.gpu import RESULTS, SECTIONS, Row, measured, rates_of, table, write_rates
from benchmarks.gpu_sections import network, run_whole
from detectors.base import Batch, Network, NetworkSpec, Precision
from detectors.graph import Graph
from pipeline.plan.cost import Rate

ROOT = Path(__file__).parents[2]
QUICK = {"device": "cpu", "batches": [1], "quick": True, "peak": 1.0}


class Planted(NetworkSpec):
    """A network that takes `most` images at once, and fails on any if that is none."""

    checkpoint: str = "planted"
    most: int

    def load(self, device: str, precision: Precision) -> Network:
        def run(images: Batch) -> list[int]:
            if not self.most:
                raise RuntimeError("no kernel image")
            if len(images) > self.most:
                raise torch.OutOfMemoryError("no room")
            return [0] * len(images)

        return run


def planted(most: int) -> SimpleNamespace:
    return SimpleNamespace(network=Planted(most=most))


def here(section: str, settings: dict[str, Any]) -> list[Row]:
    """Run a section in this process, which has imported already what each needs."""
    return [Row(section=section, **row) for row in gpu_sections.SECTIONS[section](settings)]


@pytest.mark.filterwarnings("ignore")  # as its processes do
def test_every_section_has_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(gpu, "measured", here)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--quick", "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        gpu.main()
    assert not ended.value.code
    (file,) = out.iterdir()  # no rates: those of a hurried processor are nobody's
    text = file.read_text()
    assert "--device cpu --quick" in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    found = {row[0] for row in rows[2:]}
    assert found == set(SECTIONS)
    assert all(float(row[3]) > 0 for row in rows[2:])
    networks = {row[1] for row in rows if row[0] == "networks"}
    assert networks >= {"hed_bsds500", "midas_dpt_hybrid", "depth_anything_v2_small", "pidinet"}
    assert networks >= {"teed", "normal_bae", "eomt_ade20k_large", "upernet_convnext_small"}


def test_a_network_that_fails_has_no_rate() -> None:
    with pytest.raises(RuntimeError, match="no kernel image"):
        list(network(planted(0), "bf16", QUICK))
    (row,) = network(planted(1), "bf16", QUICK)
    assert row["rate"] > 0


def test_a_batch_that_goes_on_in_halves_did_not_fit() -> None:
    graph = Graph([planted(2)])
    graph.micro_batch = 8  # a CPU's is one
    images = [np.zeros((8, 8, 3), np.uint8)] * 8
    with pytest.raises(torch.OutOfMemoryError):
        run_whole(graph, images)
    assert graph.micro_batch == 2
    run_whole(graph, images)


def test_a_section_is_a_process_and_its_rows() -> None:
    (row,) = measured("card", QUICK)
    assert row.what.startswith("cpu")
    assert row.rate is not None
    assert row.rate > 0


def test_a_section_that_fails_is_a_row() -> None:
    (row,) = measured("card", {})
    assert (row.what, row.rate) == ("failed", None)
    assert "device" in row.error
    assert "| card | failed |" in table([row])


def test_the_best_rate_of_a_network_goes_where_plans_look(tmp_path: Path) -> None:
    rows = [
        Row(section="networks", what="hed_bsds500", how="", rate=rate, settings=settings)
        for rate, settings in (
            (100.04, {"precision": "fp32", "batch": 8}),
            (812.345, {"precision": "bf16", "batch": 32}),
            (None, {"precision": "bf16", "batch": 128}),
        )
    ]
    rows.append(Row(section="recipes", what="canny", how="", rate=5000.0))
    made = rates_of(rows, "python benchmarks/gpu.py", "card.md")
    (rate,) = map(Rate.model_validate, made)
    assert (rate.work, rate.device, rate.images_per_second) == ("hed_bsds500", "cuda", 812.3)
    assert (rate.precision, rate.batch, rate.results) == ("bf16", 32, "card.md")
    for _ in range(2):
        write_rates(tmp_path, made)
    kept = json.loads((tmp_path / "rates.json").read_bytes())["rates"]
    shipped = json.loads((RESULTS / "rates.json").read_bytes())["rates"]
    assert [one for one in kept if one["device"] == "cuda" and one["work"] == rate.work] == made
    assert [one for one in kept if one["device"] == "cpu"] == [
        one for one in shipped if one["device"] == "cpu"
    ]
    assert "812.3" in table(rows)


@pytest.mark.parametrize("only", ["nothing", "networks,nothing"])
def test_an_unknown_section_is_told(only: str) -> None:
    command = [sys.executable, "benchmarks/gpu.py", "--only", only]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the sections are card, networks" in done.stderr
