"""The whole path on real photographs: dataset, subset, a short training run, pictures."""

import importlib.util
import shutil
from pathlib import Path

from rich.markup import escape

from catalog.dataset.dataset import Dataset
from catalog.images import decode_image, encode_png
from catalog.publish.grid import draw_grid
from detectors import weights
from detectors.base import Spec
from detectors.graph import Graph
from pipeline.build.build import Executor, build
from pipeline.build.local import run_local
from pipeline.generate.config import GenerateConfig
from pipeline.generate.files import GRID
from pipeline.generate.paint import make_pictures
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import load_recipe
from pipeline.report.page import write_page
from pipeline.scan.source import Inputs
from pipeline.sheet.sheet import annotate_images, specs_of, write_sheet
from pipeline.terminal.bars import sampling_bar
from pipeline.terminal.build_view import BuildView
from pipeline.terminal.console import out
from training.model.random_base import write_random_base
from training.run.loop import train
from training.settings.config import TrainConfig

_PHOTOGRAPHS = {
    "astronaut.png": "a woman in an orange space suit before a flag and a rocket",
    "chelsea.png": "the face of a tabby cat",
    "coffee.png": "a cup of coffee on a wooden table",
    "hubble_deep_field.jpg": "many distant galaxies in a dark sky",
    "motorcycle_left.png": "a motorcycle in a garage",
    "retina.jpg": "the retina of an eye",
    "rocket.jpg": "a rocket on its launch pad",
}
_PORTRAIT = ("grace_hopper.jpg", "a portrait of a woman in a navy uniform")
_CONDITIONS = ("canny", "hed", "scribble", "openpose_light", "movenet", "lsd")
_SUBSET = 4
_RESOLUTION = 256  # half the paper's: four times as many training steps a minute on two cores


def run_demo(folder: Path, *, steps: int, local: bool) -> None:
    """Run the demonstration into `folder` and say where everything lies; run again, it resumes."""
    photographs, dataset = folder / "photographs", folder / "dataset"
    base, run, pictures = folder / "random-weights-base", folder / "run", folder / "pictures"
    out.print(f"1. photographs from scikit-image and matplotlib: {collect(photographs)}")
    build_dataset(photographs, dataset, local=local)
    view = Dataset.open(str(dataset)).write_subset(_SUBSET, policy="top", seed=0)
    out.print(
        f"3. subset '{view.name}': the {len(view)} photographs of highest resolution, as a view"
    )
    if not base.exists():
        write_random_base(str(base))
    conditions = draw_conditions(photographs, folder)
    out.print(
        "5. training a ControlNet on a tiny base model with RANDOM WEIGHTS (its pictures are noise)"
    )
    result = train(_config(dataset, view.name, base, run, steps))
    if result.steps_done:
        out.print(f"   {result.steps} steps, {result.images_per_second:.1f} images/s")
    grid = pictures / GRID
    if result.steps_done or not grid.exists():
        _sample(base, run, view.read(0).conditions["canny"], pictures)
    sheet = _sheet(dataset, folder / "dataset.png")
    report = folder / "report.html"
    report.write_text(write_page(Dataset.open(str(dataset)), samples=12))
    out.print(f"""6. done. Look at:
   {escape(str(conditions))}  conditions side by side, by real networks where they are here
   {escape(str(report))}  the dataset's report, one offline page
   {escape(str(sheet))}  each photograph and its Canny map, with the thresholds that were drawn
   {escape(str(grid))}  condition and sample; the base has random weights, so expect noise
   {escape(str(dataset))}  shards (plain WebDataset tars), manifest, subset, commits
   {escape(str(run))}  the ControlNet; ControlNetModel.from_pretrained loads this folder
   Next: controlnet-factory build canny --images YOUR_FOLDER --out DATASET""")


def collect(folder: Path) -> int:
    """Copy the photographs out of their packages, a caption beside each; return their number."""
    import matplotlib
    import skimage

    samples = Path(skimage.__file__).parent / "data"
    found = {samples / name: text for name, text in _PHOTOGRAPHS.items()}
    found[Path(matplotlib.get_data_path()) / "sample_data" / _PORTRAIT[0]] = _PORTRAIT[1]
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in found.items():
        shutil.copyfile(path, folder / path.name)
        (folder / path.name).with_suffix(".txt").write_text(text)
    return len(found)


def draw_conditions(photographs: Path, folder: Path) -> Path:
    """Draw the photographs' conditions side by side; what is not on this machine is told."""
    specs = [spec for spec in specs_of(_CONDITIONS) if _is_here(spec)]
    missing = [name for name in _CONDITIONS if name not in {spec.condition for spec in specs}]
    left_out = f"; left out, not on this machine: {', '.join(missing)} (make weights)"
    out.print(f"4. conditions of the photographs{left_out if missing else ''}")
    sheet = folder / "conditions.png"
    if sheet.exists():
        return sheet
    rows = annotate_images(
        [str(photographs)],
        specs,
        folder / "conditions",
        resolution=_RESOLUTION,
        seed=0,
        graph=Graph(specs),
    )
    return write_sheet(sheet, list(rows), specs)


def _is_here(spec: Spec) -> bool:
    if spec.network is None:
        return True
    if spec.condition == "movenet" and importlib.util.find_spec("ai_edge_litert") is None:
        return False
    return weights.where(spec.network.checkpoint) is not None


def build_dataset(photographs: Path, dataset: Path, *, local: bool) -> None:
    """Build the Canny dataset of the photographs."""
    recipe = load_recipe("canny", [f"image.resolution={_RESOLUTION}", "samples_per_unit=4"])
    executor: Executor = run_local
    if not local:
        from pipeline.build.on_ray import run_on_ray as executor
    inputs = Inputs(images=[str(photographs)])
    with BuildView() as view:
        made = build(recipe, str(dataset), inputs, Execution(), executor=executor, observer=view)
    words = "built" if made.changed else "nothing to do"
    out.print(
        f"2. Canny dataset, {words}: {made.status.samples} samples in {made.status.units} shards"
    )


def _config(dataset: Path, subset: str, base: Path, run: Path, steps: int) -> TrainConfig:
    return TrainConfig(
        dataset=str(dataset),
        subset=subset,
        condition="canny",
        base=str(base),
        out=str(run),
        steps=steps,
        batch_size=2,
        checkpoint_every=max(1, steps // 2),
    )


def _sample(base: Path, run: Path, condition: bytes, pictures: Path) -> None:
    hint = pictures / "condition.png"
    hint.parent.mkdir(parents=True, exist_ok=True)
    hint.write_bytes(condition)
    config = GenerateConfig(
        base=str(base), controlnet=[str(run)], image=[hint], out=pictures, seed=[0, 1]
    )
    make_pictures(config, sampling_bar)


def _sheet(dataset: Path, path: Path) -> Path:
    """Draw every sample with its map, thresholds and caption."""
    view = Dataset.open(str(dataset)).view()
    samples = [view.read(index) for index in range(len(view))]
    cells = [
        [decode_image(sample.image) for sample in samples],
        [decode_image(sample.conditions["canny"]) for sample in samples],
    ]
    drawn = [sample.metadata["conditions"]["canny"] for sample in samples]
    columns = [
        f"{sample.caption} (low {values['low']}, high {values['high']})"
        for sample, values in zip(samples, drawn, strict=True)
    ]
    path.write_bytes(encode_png(draw_grid(cells, columns=columns, rows=["image", "canny"])))
    return path
