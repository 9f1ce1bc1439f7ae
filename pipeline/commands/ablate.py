"""The command that trains several runs alike but for one setting, and compares them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from pipeline.commands.compare import Samples, write_comparison
from pipeline.commands.options import (
    Base,
    BatchSize,
    Condition,
    DatasetUri,
    FromBase,
    HeldOut,
    LearningRate,
    Overrides,
    ProbeEvery,
    Runs,
    Seed,
    Steps,
    TrainFile,
)
from pipeline.commands.train import for_device, run_training
from pipeline.terminal.console import err, out
from pipeline.terminal.quiet import quiet_libraries

if TYPE_CHECKING:
    from training.settings.config import TrainConfig

app = typer.Typer()


@app.command()
def ablate(
    dataset: DatasetUri,
    out_: Annotated[
        Path, typer.Option("--out", help="Folder of the runs and their comparison; again resumes.")
    ],
    sizes: Annotated[
        str | None, typer.Option(help="A run a subset: 1k,10k,all (paper, Fig. 22).")
    ] = None,
    vary: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=A,B", help="A run a value: method=controlnet,concat (paper, Fig. 20)."
        ),
    ] = None,
    config: TrainFile = None,
    overrides: Overrides = None,
    base: Base = None,
    condition: Condition = None,
    start_from: Annotated[
        str | None, typer.Option(help="A run whose ControlNet all runs go on from.")
    ] = None,
    runs: Runs = None,
    from_base: FromBase = False,
    steps: Steps = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    held_out: HeldOut = None,
    probe_every: ProbeEvery = None,
    seed: Seed = None,
    samples: Samples = 6,
) -> None:
    """Train runs that differ in the dataset's size, or in one setting, and compare them."""
    given = dict(locals())
    quiet_libraries()
    from catalog.dataset.dataset import Dataset
    from pipeline.commands.ablate_settings import check_same, configs_of, variants_of
    from pipeline.compare.budget import check_probes, short_budgets
    from training.settings.config import TrainConfig

    opened = Dataset.open(dataset)
    flags: dict[str, Any] = {
        name: value
        for name, value in given.items()
        if name in TrainConfig.model_fields and value is not None
    }
    variants = variants_of(sizes, vary, opened)
    check_same(flags, overrides or [], variants[0].name)
    configs = configs_of(
        variants, out_, flags, config, overrides or [], runs=runs, from_base=from_base
    )
    check_probes(opened, next(iter(configs.values())))
    for line in short_budgets(opened, configs):
        err.print(escape(line))
    _train(configs)
    folders = {label: Path(one.out) for label, one in configs.items()}
    write_comparison(folders, out_, samples, dataset)


def _train(configs: dict[str, "TrainConfig"]) -> None:
    for number, (label, config) in enumerate(configs.items(), start=1):
        out.print(f"{number} of {len(configs)}: {escape(label)}")
        run_training(for_device(config))
