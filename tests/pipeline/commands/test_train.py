"""From what a person types to the settings of a training."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.train_settings import parse_phases, settings_of
from pipeline.errors import RecipeError, UsageError
from pipeline.recipe.recipe import load_recipe
from training.settings.config import TrainConfig

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """A dataset's folder with no more than its recipe: scribbles, which start from Canny."""
    folder = tmp_path / "d"
    folder.mkdir()
    training = {"base": "nobody/base", "start": "canny"}
    recipe = {"detectors": [{"condition": "scribble"}], "training": training}
    (folder / "recipe.json").write_text(json.dumps({"recipe": recipe, "fingerprint": "f"}))
    return str(folder)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of runs: one on HED, one on Canny that is not finished, one that is."""
    folder = tmp_path / "runs"
    for name, condition, step in (("a", "hed", 5), ("b", "canny", None), ("c", "canny", 5)):
        (folder / name).mkdir(parents=True)
        settings = {"config": {"condition": condition}, "identity": {}, "published_step": step}
        (folder / name / "train.json").write_text(json.dumps(settings))
    return folder


def made(flags: dict[str, Any], file: Path | None = None, *overrides: str, **more: Any):
    return settings_of(flags, file, list(overrides), **more)


def test_flags_and_the_recipe_are_enough(dataset: str, runs: Path) -> None:
    config = made({"dataset": dataset, "out": "o"}, runs=runs)
    assert (config.base, config.condition, config.steps) == ("nobody/base", "scribble", 10_000)
    assert config.start_from == str(runs / "c")


def test_a_missing_start_is_refused_unless_it_is_waived(dataset: str, tmp_path: Path) -> None:
    flags = {"dataset": dataset, "out": "o"}
    with pytest.raises(UsageError, match=r"--start-from RUN.*--runs DIR.*--from-base"):
        made(flags)
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="holds no finished run on canny"):
        made(flags, runs=tmp_path / "none")
    assert made(flags, from_base=True).start_from is None
    assert made({**flags, "start_from": "there"}).start_from == "there"


def test_a_file_a_flag_and_an_override(dataset: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        f"dataset: {dataset}\nout: o\nstart_from: there\nsteps: 7\nbatch_size: 3\nseed: 1\n"
        "phases:\n- {trains: mid_only, until: 5}\n- {trains: full}\n"
    )
    config = made({"batch_size": 2}, file, "seed=9", "phases.0.until=6")
    assert (config.steps, config.batch_size, config.seed) == (7, 2, 9)
    assert [phase.until for phase in config.phases] == [6, None]
    file.write_text(file.read_text() + "warmupp: 3\n")
    with pytest.raises(RecipeError, match=r"run\.yaml.*\n.*warmupp.*did you mean 'warmup'"):
        made({}, file)


def test_every_setting_can_be_overridden(dataset: str) -> None:
    base = {"dataset": dataset, "out": "o", "start_from": "there"}
    for name in TrainConfig.model_fields:
        value = getattr(made(base), name)
        shown = json.dumps(made(base).model_dump(mode="json")[name])
        assert getattr(made(base, None, f"{name}={shown}"), name) == value


def test_what_is_missing_is_named(dataset: str) -> None:
    with pytest.raises(UsageError, match="train needs --dataset"):
        made({"out": "o"})
    with pytest.raises(UsageError, match="train needs --out"):
        made({"dataset": dataset})
    with pytest.raises(UsageError, match="--steps -1"):
        made({"dataset": dataset, "out": "o", "start_from": "there", "steps": -1})


def test_phases_as_a_flag_has_them() -> None:
    assert parse_phases("mid_only:2000, full:converged,unlocked") == [
        {"trains": "mid_only", "until": 2000},
        {"trains": "full", "until": "converged"},
        {"trains": "unlocked", "until": None},
    ]
    with pytest.raises(UsageError, match="'full:soon' must end at a step or at converged"):
        parse_phases("full:soon,unlocked")


def test_an_override_counts_as_stated(dataset: str) -> None:
    config = made({"out": "o"}, None, f"dataset={dataset}", "method=concat")
    assert (config.method, config.start_from) == ("concat", None)


def test_flags_that_do_not_go_together_are_told_in_words(dataset: str) -> None:
    flags = {"dataset": dataset, "out": "o", "start_from": "there"}
    with pytest.raises(UsageError, match=r"^Value error, the last phase has no until"):
        made({**flags, "phases": parse_phases("full:5")})


def test_a_recipe_says_how_it_is_trained_until_a_run_has_begun(
    dataset: str, tmp_path: Path
) -> None:
    path = Path(dataset, "recipe.json")
    content = json.loads(path.read_bytes())
    phases = [{"trains": "mid_only", "until": 5}, {"trains": "full"}]
    stated = {"steps": 20, "batch_size": 3, "learning_rate": 1e-4, "phases": phases, "gpu_hours": 6}
    content["recipe"]["training"] |= stated
    path.write_text(json.dumps(content))
    flags = {"dataset": dataset, "out": str(tmp_path / "run"), "start_from": "there"}
    config = made({**flags, "batch_size": 2})
    assert (config.steps, config.batch_size, config.learning_rate) == (20, 2, 1e-4)
    assert [phase.trains for phase in config.phases] == ["mid_only", "full"]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "train.json").write_text(json.dumps({"config": {}, "identity": {}}))
    assert made(flags).model_fields_set == {*flags, "base", "condition", "steps"}


def test_the_papers_recipes_say_what_the_paper_says() -> None:
    texts = {path.stem: path.read_text() for path in RECIPES.glob("*.yaml")}
    recipes = [load_recipe(name) for name, text in texts.items() if text.startswith("# Paper, ")]
    assert len(recipes) == 13
    for recipe in recipes:
        training = recipe.training
        assert training is not None
        assert (training.learning_rate, training.prompt_dropout) == (1e-5, 0.5)
        assert (training.gpu_hours is None) == (recipe.name == "depth_small")
