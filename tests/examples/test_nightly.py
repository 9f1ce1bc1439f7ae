"""The files of examples/nightly are what schedulers and the command take."""

import ast
import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from pipeline.commands import rebuild
from pipeline.recipe.recipe import load_recipe
from pipeline.recipe.yaml_file import load_model
from pipeline.retrain.nightly import Nightly
from training.settings.config import TrainConfig

FOLDER = Path(__file__).parents[2] / "examples" / "nightly"


def test_the_schedule_loads_with_its_recipe_and_its_training() -> None:
    text = (FOLDER / "nightly.yaml").read_text()
    made = load_model(Nightly, text, name="nightly.yaml", overrides=[])
    assert load_recipe(made.recipe, made.overrides).name == "canny"
    assert made.train is not None
    nights_own = {"dataset": made.folder, "out": str(made.run_folder("one"))}
    from_the_recipe = {"condition": "canny", "base": "base"}
    TrainConfig.model_validate({**made.train, **nights_own, **from_the_recipe})


def test_the_cron_job_creates_a_job_and_overlaps_none() -> None:
    job = yaml.safe_load((FOLDER / "cronjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (mount,) = container["volumeMounts"]
    assert mount["name"] in {volume["name"] for volume in pod["volumes"]}
    assert container["args"][-1].startswith(mount["mountPath"])


@pytest.mark.parametrize("name", ["crontab", "airflow_dag.py", "cronjob.yaml"])
def test_schedulers_call_a_command_that_is_there(name: str) -> None:
    text = (FOLDER / name).read_text()
    if name.endswith(".py"):
        joined = "".join(
            node.value
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
        text = joined
    (options,) = {
        tuple(re.findall(r"--[a-z-]+", line)) for line in re.findall(r"rebuild( --config.*)", text)
    }
    known = get_command(rebuild.app).commands["rebuild"].params  # type: ignore[attr-defined]
    assert {*options} <= {flag for param in known for flag in param.opts}
    assert "--config" in options
