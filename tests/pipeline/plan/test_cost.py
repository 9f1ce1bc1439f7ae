"""Estimates rest on rates that results hold, add up by networks, and say what was not measured."""

import re
from pathlib import Path

import pytest

from pipeline.commands import cli
from pipeline.errors import Exit
from pipeline.plan import cost
from pipeline.plan.cost import Rate, estimate, read_rates
from pipeline.recipe.recipe import load_recipe

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"


def rate(work: str, images_per_second: float, device: str = "cpu") -> Rate:
    return Rate(
        work=work, device=device, images_per_second=images_per_second, command="", results=""
    )


RATES = [rate("base", 10), rate("hed_bsds500", 0.5), rate("hed_bsds500", 100, "cuda")]


@pytest.mark.parametrize("found", read_rates(), ids=lambda found: f"{found.work}-{found.device}")
def test_every_rate_stands_in_the_results_that_it_names(found: Rate) -> None:
    text = (RESULTS / found.results).read_text()
    assert found.command in text
    assert re.search(rf"(?<![\d.]){found.images_per_second}(?![\d.])", text)


@pytest.mark.parametrize(
    ("recipe", "device", "hours"),
    [
        ("canny", "cpu", 0.1),
        ("hed", "cpu", 2.1),
        ("scribble", "cpu", 2.1),  # the same network
        ("hed", "cuda", 0.01),
        ("canny", "cuda", 0.0),
    ],
)
def test_time_adds_up(recipe: str, device: str, hours: float) -> None:
    found = estimate(3600, load_recipe(recipe), device, 2.5, RATES, texts=3600)
    assert found.hours == pytest.approx(hours)
    assert found.cost == pytest.approx(2.5 * hours)
    assert found.unknown == ()


def test_captions_take_time_for_the_images_that_need_one() -> None:
    rates = [*RATES, rate("captions by sidecar_or_blip", 2)]
    for texts, hours in ((3600, 0.1), (1800, 0.35), (0, 0.6)):
        found = estimate(3600, load_recipe("canny"), "cpu", None, rates, texts=texts)
        assert found.hours == pytest.approx(hours)


def test_larger_images_take_longer() -> None:
    larger = load_recipe("canny", ["image.resolution=1024"])
    assert estimate(3600, larger, "cpu", None, RATES, texts=3600).hours == pytest.approx(0.4)


def test_images_that_are_no_squares_count_by_their_pixels() -> None:
    made = load_recipe("canny", ["image.crop=none"])
    found = estimate(3600, made, "cpu", None, RATES, texts=3600, pixels=2 * 3600 * 512**2)
    assert found.hours == pytest.approx(0.2)


def test_a_gpu_is_said_to_have_cores_beside_it() -> None:
    hed = estimate(3600, load_recipe("hed"), "cuda", 1.0, RATES, texts=3600).lines()
    assert hed[1] == "core-hours beside: about 0.1, not in the cost"
    assert hed[2] == "limited by the processor below 10.0 cores a GPU, by the networks above"
    canny = estimate(3600, load_recipe("canny"), "cuda", None, RATES, texts=3600).lines()
    assert canny[0] == "GPU-hours: none; no network of this recipe looks at an image"
    assert canny[2] == "limited by the processor: no network looks at an image"
    on_cores = estimate(3600, load_recipe("hed"), "cpu", None, RATES, texts=3600).lines()
    assert on_cores[1] == "limited by hed_bsds500: 95% of the time"


def test_precision_and_batch_of_a_rate_are_said() -> None:
    chosen = RATES[2].model_copy(update={"precision": "bf16", "batch": 32})
    found = estimate(3600, load_recipe("hed"), "cuda", None, [RATES[0], chosen], texts=3600)
    assert found.lines()[1] == "  hed_bsds500: measured with bf16, batch 32"
    assert estimate(3600, load_recipe("hed"), "cuda", None, RATES, texts=3600).settings == ()


@pytest.mark.parametrize(
    ("recipe", "overrides", "device", "unknown"),
    [
        ("hough", [], "cpu", ("mlsd_large", "captions by blip")),
        ("depth", [], "cuda", ("midas_dpt_hybrid",)),
        ("canny", ["captions={captioner: blip, model: /w}"], "cpu", ("captions by blip",)),
    ],
)
def test_what_was_not_measured_is_said(
    recipe: str, overrides: list[str], device: str, unknown: tuple[str, ...]
) -> None:
    found = estimate(3_000_000, load_recipe(recipe, overrides), device, 1.0, RATES, texts=3_000_000)
    assert (found.hours, found.cost, found.unknown) == (None, None, unknown)
    said = "\n".join(found.lines())
    assert f"not known; no rate was measured on {device} for {unknown[0]}" in said
    command = {"cpu": "benchmarks/detectors.py --device cpu", "cuda": "benchmarks/gpu.py"}
    assert command[device] in said


_ALL = "limited by decoding, drawing, encoding and writing: 100% of the time"


@pytest.mark.parametrize(
    ("images", "price", "said"),
    [
        (3600, None, ["core-hours: about 0.1, at rates of benchmarks/results/rates.json", _ALL]),
        (36_000_000, 0.05, ["core-hours: about 1,000, at", _ALL, "cost: about 50.00, in the cur"]),
    ],
)
def test_an_estimate_in_words(images: int, price: float | None, said: list[str]) -> None:
    lines = estimate(images, load_recipe("canny"), "cpu", price, RATES, texts=images).lines()
    assert len(lines) == len(said)
    for line, start in zip(lines, said, strict=True):
        assert line.startswith(start)


def test_the_sizing_table_is_what_the_rates_come_to() -> None:
    text = (Path(__file__).parents[3] / "docs" / "cluster.md").read_text()
    rows = re.findall(r"^\| ([a-z_]+)[^|]*\| ([\d.]+) \| ([\d,]+) \|", text, re.M)
    assert len(rows) == 6
    for recipe, images_per_second, hours in rows:
        made = load_recipe(recipe, ["captions.captioner=sidecar"])
        found = estimate(3_000_000, made, "cpu", None, read_rates())
        assert found.hours == pytest.approx(float(hours.replace(",", "")), abs=0.5)
        assert 3_000_000 / found.hours / 3600 == pytest.approx(float(images_per_second), rel=0.04)


def test_the_command_shows_it_after_the_plan(
    pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def plan(*arguments: str) -> tuple[int, str]:
        line = ["factory", "plan", "hed", "--images", str(pictures), "--dry-run", *arguments]
        line += ["--set", "captions.captioner=sidecar"]
        monkeypatch.setattr("sys.argv", line)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out + shown.err

    code, shown = plan("--price-per-hour", "100")
    assert code == Exit.DONE
    assert "core-hours: about 0.00" in shown
    assert "cost: about 0.6" in shown
    assert "GPU-hours: not known" in plan("--device", "cuda")[1]
    code, shown = plan("--device", "tpu")
    assert code == Exit.USAGE
    assert "--device 'tpu'" in shown


def test_without_the_table_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cost, "__file__", str(tmp_path / "pipeline" / "plan" / "cost.py"))
    assert read_rates() == []
    assert estimate(1, load_recipe("canny"), "cpu", None, [], texts=1).unknown == ("base",)
