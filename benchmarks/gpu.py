"""What a card does: every network, captions, builds, latents, training and loading, in one table.

    python benchmarks/gpu.py [--device cuda] [--only networks,training] [--batch 1,8,32,128]
                             [--images 2048] [--out benchmarks/results]
    python benchmarks/gpu.py --device cpu --quick --out FOLDER    # every line of it, without a card

It needs no network: a checkpoint that is not on this machine is replaced by random weights, and the
row says so, which changes no time of a network, but that of what is done with its findings.

card      the bf16 products a second of a large matrix product, which the shares refer to
networks  images a second by precision and batch, from pixels on the host to findings there, at
          512 x 512; the share is of the card's measured bf16 products
captions  BLIP of base size
recipes   whole builds with decoding and committing, by Ray on all CPUs; starting workers counts
latents   autoencoder and text encoder of Stable Diffusion 1.5's size
training  a ControlNet on a base of that size, 512 x 512, from shards (training.py's own way)
loader    batches of decoded pairs from shards

Each section is a process of its own (gpu_sections.py): one that fails is a row with its error, as
is a network or a recipe, and the exit status is 1; a batch that does not fit into memory only ends
its sweep. Written are <card>-<date>.md and, where the card is a GPU, its rates into rates.json
beside it, which `plan --dry-run` reads.
"""

import argparse
import datetime
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECTIONS = ("card", "networks", "captions", "recipes", "latents", "training", "loader")
OUT_OF_MEMORY = "out of memory"
RESULTS = Path(__file__).with_name("results")
_SECTION = Path(__file__).with_name("gpu_sections.py")
_HEAD = ("section", "what", "how", "images/s", "of the peak", "MiB", "weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        section: of `SECTIONS`.
        what: checkpoint, recipe or rung.
        how: precision, batch and the like.
        rate: images a second; None where it failed or ran out of memory.
        share: of the card's measured bf16 products a second.
        memory: peak on the device, MiB.
        weights: real, random or nothing.
        error: why there is no rate.
        settings: precision and batch, for rates.json.
    """

    section: str
    what: str
    how: str
    rate: float | None = None
    share: float | None = None
    memory: float | None = None
    weights: str = ""
    error: str = ""
    settings: dict[str, Any] | None = None

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        rate = self.error if self.rate is None else _figure(self.rate)
        share = "" if self.share is None else f"{self.share:.1%}"
        memory = "" if self.memory is None else f"{self.memory:,.0f}"
        return self.section, self.what, self.how, rate, share, memory, self.weights


def measured(section: str, settings: dict[str, Any]) -> list[Row]:
    """Run a section in a process of its own; one that fails is a row."""
    line = [sys.executable, str(_SECTION), section, json.dumps(settings)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    rows = [
        Row(section=section, **json.loads(said.removeprefix("ROW ")))
        for said in done.stdout.splitlines()
        if said.startswith("ROW ")
    ]
    if done.returncode:
        last = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        rows.append(Row(section=section, what="failed", how="", error=last[-1]))
    return rows


def table(rows: list[Row]) -> str:
    """Return the rows as Markdown."""
    lines = [_HEAD, tuple("---:" if 3 <= at <= 5 else "---" for at in range(len(_HEAD)))]
    lines += [row.cells() for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def rates_of(rows: list[Row], command: str, results: str) -> list[dict[str, Any]]:
    """Return the best rate of each network and captioner, as rates.json has them."""
    best: dict[str, Row] = {}
    for row in rows:
        if row.section in ("networks", "captions") and row.rate is not None:
            known = best.get(row.what)
            if known is None or (known.rate or 0) < row.rate:
                best[row.what] = row
    return [
        {
            "work": work,
            "device": "cuda",
            "images_per_second": float(_figure(row.rate or 0)),
            **(row.settings or {}),
            "command": command,
            "results": results,
        }
        for work, row in best.items()
    ]


def write_rates(out: Path, made: list[dict[str, Any]]) -> None:
    """Put a card's rates in the place of what rates.json knows of GPUs for the same work."""
    path = out / "rates.json"
    kept = path if path.is_file() else RESULTS / "rates.json"
    content = json.loads(kept.read_text())
    anew = {rate["work"] for rate in made}
    content["rates"] = [
        rate for rate in content["rates"] if rate["device"] == "cpu" or rate["work"] not in anew
    ] + made
    path.write_text(json.dumps(content, indent=2) + "\n")


def _figure(rate: float) -> str:
    """Return four significant digits."""
    return f"{float(f'{rate:.4g}'):g}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--batch", default="1,8,32,128")
    parser.add_argument("--images", type=int, default=2048, help="of a build")
    parser.add_argument("--quick", action="store_true", help="tiny: to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    sections = options.only.split(",")
    if unknown := set(sections) - set(SECTIONS):
        parser.error(f"--only {', '.join(unknown)}: the sections are {', '.join(SECTIONS)}")
    settings = {
        "device": options.device,
        "batches": [1] if options.quick else [int(one) for one in options.batch.split(",")],
        "images": 8 if options.quick else options.images,
        "quick": options.quick,
        "peak": 0.0,
    }
    rows: list[Row] = []
    card = options.device
    print(f"| {' | '.join(_HEAD)} |", flush=True)
    for section in ["card", *(one for one in SECTIONS[1:] if one in sections)]:
        for row in measured(section, settings):
            rows.append(row)
            print(f"| {' | '.join(row.cells())} |", flush=True)
            if section == "card" and row.rate is not None:
                card, settings["peak"] = row.what, row.rate
    options.out.mkdir(parents=True, exist_ok=True)
    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    name = f"{re.sub('[^a-z0-9]+', '-', card.lower()).strip('-')}-{day}.md"
    command = " ".join(["python benchmarks/gpu.py", *sys.argv[1:]])
    how = f"# {card}, {day}\n\n    {command}\n\n{__doc__.split(chr(10) * 2)[0]}\n"
    (options.out / name).write_text(f"{how}\n{table(rows)}\n")
    if options.device == "cuda":
        write_rates(options.out, rates_of(rows, command, name))
    print(f"written: {options.out / name}")
    sys.exit(any(row.error not in ("", OUT_OF_MEMORY) for row in rows))


if __name__ == "__main__":
    main()
