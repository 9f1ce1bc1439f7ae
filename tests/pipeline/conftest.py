"""Pictures, recipes and an observer that the pipeline's tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.build.build import BuildResult, Executor, build
from pipeline.build.local import run_local
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import Recipe, load_recipe
from pipeline.scan.source import Inputs
from tests.pipeline.ray_head import Head, ray_head
from tests.pipeline.silent import Silent
from tests.rules import ANY_LOOK

PICTURES = 10


@pytest.fixture(scope="session")
def silent() -> type[Silent]:
    """Return the observer that shows nothing."""
    return Silent


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten pictures of different sizes, some with captions, in two subfolders."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(7)
    for number in range(PICTURES):
        size = (96 + 8 * number, 80 + 4 * (number % 3))
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST)
        path = folder / ("odd" if number % 2 else "even") / f"{number:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        picture.save(path if number % 3 else path.with_suffix(".png"))
        if number % 4:
            path.with_suffix(".txt").write_text(f"picture {number}\n")
    return folder


@pytest.fixture
def recipe() -> Recipe:
    """The shipped Canny recipe, made small."""
    return load_recipe("canny", ["image.resolution=64", "samples_per_unit=3", *ANY_LOOK])


@pytest.fixture
def make(recipe: Recipe) -> Callable[..., BuildResult]:
    """Build a dataset in this process, without a word."""

    def run(
        images: Path | str | list[Path],
        out: Path | str,
        *,
        recipe: Recipe = recipe,
        executor: Executor = run_local,
        observer: Silent | None = None,
    ) -> BuildResult:
        uris = [str(path) for path in (images if isinstance(images, list) else [images])]
        return build(
            recipe,
            str(out),
            Inputs(images=uris),
            Execution(threads=2),
            executor=executor,
            observer=observer or Silent(),
        )

    return run


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """A Ray head that all tests share which need nothing special of one."""
    with ray_head(cpus=2) as running:
        yield running
