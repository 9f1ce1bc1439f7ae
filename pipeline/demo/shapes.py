"""The part on drawn shapes: a ControlNet that learns to obey, on the base of examples/shapes."""

from pathlib import Path

from pipeline.demo.walk import Step
from pipeline.errors import UsageError

PICTURES = 2000
"""That are drawn, unless asked for otherwise."""

GUIDANCE = "1"
"""Classifier-free guidance of the evaluation, that of the probes in run.yaml."""

HELD_OUT = 64
"""Pictures that are held out, by run.yaml, and evaluated; of few pictures a tenth."""


def example() -> Path:
    """Return the folder of the example: its base, its settings, and the code that draws.

    Relative where it lies below the working directory, as one would type it.

    Raises:
        UsageError: it is not here.
    """
    here = Path(__file__).parent
    folders = (here / "example", here.parents[1] / "examples" / "shapes")  # in a wheel, a checkout
    for folder in folders:
        if (folder / "run.yaml").is_file():
            below = folder.is_relative_to(Path.cwd())
            return folder.relative_to(Path.cwd()) if below else folder
    raise UsageError("the example on shapes is not installed: run the demo from a checkout")


def shapes_steps(folder: Path, *, pictures: int, steps: int | None, local: bool) -> list[Step]:
    """Return the steps.

    Args:
        folder: of the part.
        pictures: that are drawn.
        steps: of the training; None for those of run.yaml.
        local: build without Ray.
    """
    drawn, dataset, run = (str(folder / name) for name in ("pictures", "dataset", "run"))
    base = str(example() / "base")
    build = ["build", "canny", "--images", drawn, "--out", dataset]
    for setting in (
        "image.resolution=64",
        "image.format=png",
        "rules.min_sharpness=0",  # these two are measured on photographs
        "rules.min_chroma=0",
    ):
        build += ["--set", setting]
    train = ["train", "--config", str(example() / "run.yaml"), "--base", base]
    train += ["--dataset", dataset, "--out", run]
    held_out = min(HELD_OUT, pictures // 10)
    if held_out < HELD_OUT:
        train += ["--held-out", str(held_out)]
    if steps is not None:
        train += ["--steps", str(steps)]
    return [
        Step(
            title="Pictures of coloured shapes, drawn by code",
            command=(
                "python",
                str(example() / "draw.py"),
                "--out",
                drawn,
                "--count",
                str(pictures),
            ),
            makes=Path(drawn) / "truth.json",
        ),
        Step(
            title="A Canny dataset of them",
            command=("controlnet-factory", *build, *(["--local"] if local else [])),
            makes=Path(dataset) / "manifest.parquet",
        ),
        Step(
            title="Latents and text, encoded once",
            command=("controlnet-factory", "precompute", dataset, "--base", base, "--local"),
            makes=Path(dataset) / "latents",
        ),
        Step(
            title="A ControlNet, trained on it",
            command=("controlnet-factory", *train),
            makes=Path(run) / "config.json",
        ),
        Step(
            title="How well it obeys the edges of pictures that it was not trained on",
            command=(
                *("controlnet-factory", "evaluate", "--run", run, "--dataset", dataset),
                *("--cfg", GUIDANCE, "--samples", str(held_out)),
            ),
            makes=Path(run) / "evaluation" / "evaluation.json",
        ),
    ]
