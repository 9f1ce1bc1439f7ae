"""What may move a bit stands in a commit's environment."""

import pytest

from pipeline.attempts.environment import environment
from pipeline.recipe.execution import Execution
from pipeline.recipe.recipe import load_recipe


def test_a_gpus_arithmetic_is_part_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an earlier version made there with TF32 is another environment's, and no alarm."""
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "a GPU")
    there = environment(load_recipe("hed"), Execution(device="cuda"))
    assert (there["device"], there["precision"]) == ("a GPU", "fp32")
    assert there["convolutions"] == "as stated, deterministic"
    here = environment(load_recipe("hed"), Execution())
    assert "convolutions" not in here
