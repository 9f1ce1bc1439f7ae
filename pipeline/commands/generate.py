"""The command that samples."""

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.markup import escape

from pipeline.commands.options import DeviceHere, SubsetName, Vae
from pipeline.errors import UsageError, in_flags
from pipeline.terminal.bars import sampling_bar
from pipeline.terminal.console import err, out
from pipeline.terminal.quiet import quiet_libraries

app = typer.Typer()


@app.command()
def generate(
    controlnet: Annotated[
        list[str], typer.Option(help="A run's folder, or one of its checkpoints. Repeatable.")
    ],
    base: Annotated[
        str, typer.Option(help="Stable Diffusion: a folder in diffusers' layout, or a hub id.")
    ],
    image: Annotated[
        list[Path] | None,
        typer.Option(help="A condition map. Repeatable; with several ControlNets one for each."),
    ] = None,
    source: Annotated[
        list[Path] | None, typer.Option(help="A picture to detect conditions in. Repeatable.")
    ] = None,
    detect: Annotated[
        list[str] | None, typer.Option(help="Detector for --source; one a ControlNet.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="DETECTOR.FIELD=VALUE", help="Of --detect."),
    ] = None,
    resolution: Annotated[int, typer.Option(help="Short side of a --source; pixels.")] = 512,
    dataset: Annotated[
        str | None, typer.Option(help="A dataset's folder or URI to take conditions from.")
    ] = None,
    subset: SubsetName = None,
    condition: Annotated[
        list[str] | None, typer.Option(help="Which of the dataset's; one a ControlNet.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="all, or held-out: rows that the run did not train on.")
    ] = "all",
    count: Annotated[int, typer.Option(help="First samples of the dataset, or split.")] = 4,
    out_: Annotated[Path, typer.Option("--out", help="Folder for the pictures.")] = Path(
        "generated"
    ),
    scale: Annotated[
        list[float] | None, typer.Option(help="Factor on a ControlNet; one for all or one each.")
    ] = None,
    window: Annotated[
        tuple[float, float],
        typer.Option(metavar="START END", help="Shares of the steps in which ControlNets run."),
    ] = (0.0, 1.0),
    weighting: Annotated[
        str, typer.Option(help="Of a ControlNet's outputs: even, guess or resolution.")
    ] = "even",
    guess: Annotated[bool, typer.Option("--guess", help="The same as --weighting guess.")] = False,
    prompt_mode: Annotated[
        str | None, typer.Option(help="none, default, automatic or user; default by --prompt.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Default: the paper's default prompt.")] = None,
    negative_prompt: Annotated[str, typer.Option(help="What not to show.")] = "",
    captioner: Annotated[
        str | None, typer.Option(help="BLIP for automatic prompts: a hub id, or ./FOLDER.")
    ] = None,
    edit: Annotated[
        Path | None, typer.Option(help="A picture of which --mask is painted anew.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="White repaints, black keeps.")] = None,
    paste: Annotated[
        bool, typer.Option(help="Take kept pixels from --edit, not out of the VAE.")
    ] = True,
    seed: Annotated[list[int] | None, typer.Option(help="Repeatable; one picture each.")] = None,
    batch_size: Annotated[
        int, typer.Option(help="Seeds at once; more are faster on a GPU, and may move a bit.")
    ] = 1,
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = 20,
    cfg: Annotated[float, typer.Option(help="Classifier-free guidance scale; 1: off.")] = 9.0,
    device: DeviceHere = "cpu",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp32",
    revision: Annotated[str | None, typer.Option(help="Of the base on the hub.")] = None,
    vae: Vae = None,
    local_files_only: Annotated[bool, typer.Option(help="Never ask the hub.")] = False,
) -> None:
    """Sample with trained ControlNets: PNGs, a labelled grid and a record of every setting."""
    given = {name: value for name, value in locals().items() if value is not None}
    given["out"] = given.pop("out_")
    given.setdefault("prompt_mode", "default" if prompt is None else "user")
    if given.pop("guess"):
        given["weighting"] = "guess"
    from pipeline.generate.config import GenerateConfig

    try:
        config = GenerateConfig(**given)
    except ValidationError as error:
        raise UsageError(in_flags(error)) from error
    quiet_libraries()
    from pipeline.generate.paint import make_pictures
    from training.sample.prompts import foreign_syntax

    for text in (config.prompt or "", config.negative_prompt):
        if foreign := foreign_syntax(text):
            told = escape(" ".join(foreign))
            err.print(f"read as plain words, no prompt is weighted here: {told}")
    made = make_pictures(config, sampling_bar)
    calls = f"{made.controlnet_calls} ControlNet calls in {config.steps} steps"
    out.print(f"written: {escape(str(made.grid))}, {calls}")
