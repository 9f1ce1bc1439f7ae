import subprocess
import sys

import pytest
from pydantic import ValidationError

from training.settings.config import TrainConfig

NEEDED = {"dataset": "d", "condition": "canny", "base": "b", "out": "o", "steps": 1}


def test_defaults_are_the_papers():
    config = TrainConfig(**NEEDED)
    assert (config.learning_rate, config.prompt_dropout) == (1e-5, 0.5)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rat": 1e-5},
        {"steps": 0},
        {"batch_size": 0},
        {"prompt_dropout": 1.5},
        {"learning_rate": -1},
        {"mixed_precision": "fp8"},
        {"hint_encoder": "papier"},
        {"seed": -1},
    ],
)
def test_what_makes_no_sense_is_refused_by_name(change):
    with pytest.raises(ValidationError, match=next(iter(change))):
        TrainConfig(**{**NEEDED, **change})


def test_the_settings_load_without_torch():
    code = (
        "import sys, training.settings.config, training.sample.prompts, training.errors; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
