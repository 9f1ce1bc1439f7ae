"""`ablate` over two sizes of a dataset that the factory built, and `compare` on its runs."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from catalog.dataset.dataset import Dataset
from catalog.images import decode_image
from pipeline.commands.ablate_settings import check_same, variants_of
from pipeline.commands.cli import app
from pipeline.errors import UsageError
from tests.random_base import write_random_base
from tests.rules import ANY_LOOK_FLAGS
from tests.training.stepping import contents, forget_accelerate
from training.data.held_out import read_held_out
from training.errors import TrainingError
from training.run.folder import read_settings

STEPS = 2
FILES = ("compare.json", "compare.md", "adherence.png", "grid.png")


def call(*arguments: object) -> Result:
    done = CliRunner().invoke(app, [str(one) for one in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def height(picture: Path) -> int:
    return decode_image(picture.read_bytes()).shape[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ablate")


@pytest.fixture(scope="module")
def dataset(folder: Path, pictures: Path) -> Dataset:
    """Ten samples, and a subset of six."""
    uri = folder / "dataset"
    small = ["--set", "image.resolution=64", *ANY_LOOK_FLAGS]
    call("build", "canny", "--local", "--images", pictures, "--out", uri, *small)
    call("subset", uri, "--sizes", "6")
    return Dataset.open(str(uri))


@pytest.fixture(scope="module")
def line(folder: Path, dataset: Dataset) -> list[object]:
    write_random_base(str(folder / "base"))
    settings = ["--base", folder / "base", "--steps", STEPS, "--batch-size", 2, "--held-out", 2]
    out = ["--out", folder / "ablation", "--set", "probe_steps=1"]
    return ["ablate", dataset.uri, "--sizes", "6,all", *settings, *out, "--probe-every", 1]


@pytest.fixture(scope="module")
def ablation(line: list[object]) -> Result:
    done = call(*line)
    forget_accelerate()
    return done


def test_each_size_is_trained_alike_on_the_same_held_out_samples(ablation, folder):
    runs = [folder / "ablation" / "runs" / name for name in ("6", "all")]
    small, whole = (read_settings(run) for run in runs)
    assert (small["config"].pop("subset"), whole["config"].pop("subset")) == ("6", None)
    assert Path(small["config"].pop("out")).parent == Path(whole["config"].pop("out")).parent
    assert small["config"] == whole["config"]
    assert read_held_out(runs[0]) == read_held_out(runs[1])
    assert small["published_step"] == whole["published_step"] == STEPS


def test_the_table_names_rows_and_budget(ablation, folder):
    kept = json.loads((folder / "ablation" / "compare.json").read_bytes())
    small, whole = kept["runs"]
    assert (small["label"], whole["label"], whole["rows"]) == ("6", "all", 8)
    assert small["rows"] <= 6
    assert (whole["steps"], whole["images_seen"]) == (STEPS, 2 * STEPS)
    assert small["settings"] == {"subset": "6"}
    assert whole["settings"] == {"subset": "all"}
    assert kept["metric"] == "Canny F1 (1 px)"
    text = (folder / "ablation" / "compare.md").read_text()
    assert "| run | method | subset | rows trained on | steps | images seen |" in text
    assert "all has seen 4 images, less than one epoch of its 8 rows." in text


def test_progress_table_and_files_are_told(ablation, folder):
    assert "1 of 2: 6" in ablation.output
    assert "all: 4 images are less than one epoch of its 8 rows" in ablation.stderr
    assert "rows trained on" in ablation.stdout
    assert f"written: {folder / 'ablation'}: {', '.join(FILES)}" in ablation.stdout


def test_the_grid_has_a_column_a_run(ablation, folder):
    grid = decode_image((folder / "ablation" / "grid.png").read_bytes())
    assert grid.shape[0] > 2 * 192  # two held-out samples of 64 px, enlarged
    assert grid.shape[1] > 4 * 192  # condition, photograph, two runs


def test_the_same_command_again_trains_nothing(ablation, line, folder):
    before = contents(folder / "ablation")
    again = call(*line)
    forget_accelerate()
    assert again.output.count("nothing to do:") == 2
    assert contents(folder / "ablation") == before


def test_compare_reads_the_runs_where_they_lie(ablation, folder, tmp_path):
    runs = [folder / "ablation" / "runs" / name for name in ("6", "all")]
    done = call("compare", *runs, "--out", tmp_path / "two", "--samples", "1")
    assert "6" in done.stdout
    for name in FILES[:3]:
        assert (tmp_path / "two" / name).read_bytes() == (folder / "ablation" / name).read_bytes()
    assert height(tmp_path / "two" / "grid.png") < height(folder / "ablation" / "grid.png")


def test_what_cannot_be_compared_is_refused(ablation, folder, dataset, tmp_path):
    run, other = (folder / "ablation" / "runs" / name for name in ("6", "all"))

    def refused(*arguments: object) -> str:
        with pytest.raises((UsageError, TrainingError)) as caught:
            call("compare", *arguments, "--out", tmp_path / "out")
        return str(caught.value)

    assert "at least 2 runs, got 1" in refused(run)
    assert "named twice" in refused(run, other, run)
    assert f"{dataset.uri} is no run: it has no train.json" in refused(run, dataset.uri)
    bare = tmp_path / "bare"
    shutil.copytree(other, bare, ignore=shutil.ignore_patterns("signals"))
    assert "has no probes of adherence" in refused(run, bare)
    apart = tmp_path / "apart"
    shutil.copytree(other, apart)
    references = apart / "signals" / "references.json"
    record = json.loads(references.read_bytes())
    references.write_text(json.dumps(record | {"keys": record["keys"][::-1]}))
    assert "apart was probed on other held-out samples than 6" in refused(run, apart)
    shutil.rmtree(bare)
    shutil.copytree(other, bare, ignore=shutil.ignore_patterns("pictures"))
    assert "bare has no picture signals/pictures/" in refused(run, bare)
    assert not (tmp_path / "out").exists()


def test_one_setting_may_vary(line, folder, tmp_path):
    given = [*line[:2], *line[4:], "--vary", "method=controlnet,concat", "--steps", 1]
    given[given.index("--out") + 1] = tmp_path / "methods"
    call(*given)
    forget_accelerate()
    kept = json.loads((tmp_path / "methods" / "compare.json").read_bytes())
    assert [run["method"] for run in kept["runs"]] == ["controlnet", "concat"]
    assert [run["settings"] for run in kept["runs"]] == [{}, {}]


def test_values_are_read_as_settings(dataset):
    def values(vary: str) -> list[tuple[str, object]]:
        return [(one.label, one.value) for one in variants_of(None, vary, dataset)]

    assert values("hint_encoder=released, paper") == [("released", "released"), ("paper", "paper")]
    assert values("start_from=null;runs/a") == [("null", None), ("runs-a", "runs/a")]
    assert values("phases=mid_only:5,full;full") == [
        (
            "mid_only-5,full",
            [{"trains": "mid_only", "until": 5}, {"trains": "full", "until": None}],
        ),
        ("full", [{"trains": "full", "until": None}]),
    ]


@pytest.mark.parametrize(
    ("sizes", "vary", "said"),
    [
        ("6,7", None, r"--sizes 7: .* has 6, all; make it with: subset .* --sizes 7"),
        ("6", None, "expected 2 or more values, each once"),
        ("all,all", None, "expected 2 or more values, each once"),
        (None, None, "needs one of --sizes"),
        ("6,all", "seed=0,1", "needs one of --sizes"),
        (None, "method", "write a setting of a run with its values"),
        (None, "methd=a,b", "write a setting of a run with its values"),
        (None, "condition=a,b", "runs on several conditions cannot be compared"),
        (None, "phases=mid_only:soon;full", "must end at a step"),
    ],
)
def test_other_ablations_are_refused(dataset, sizes, vary, said):
    with pytest.raises(UsageError, match=said):
        variants_of(sizes, vary, dataset)


def test_what_varies_is_not_set_for_all():
    check_same(["seed"], ["warmup=1"], "subset")
    with pytest.raises(UsageError, match="--learning-rate and --vary learning_rate"):
        check_same(["learning_rate"], [], "learning_rate")
    for override in ("out=x", "phases.0.until=6"):
        with pytest.raises(UsageError, match="is each run's own in an ablation"):
            check_same([], [override], "phases")


def test_nothing_is_trained_without_probes(line, tmp_path):
    given = list(line)
    given[given.index("--out") + 1] = tmp_path / "none"
    with pytest.raises(UsageError, match="--probe-every must not be 0"):
        call(*given, "--probe-every", 0)
    with pytest.raises(UsageError, match="of 10 none is held out: give --held-out N"):
        call(*given, "--held-out", 0)
    assert not (tmp_path / "none").exists()
