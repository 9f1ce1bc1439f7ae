"""On a GPU: a run in half precision learns, and goes on from its checkpoint."""

from collections.abc import Callable

import pytest

from tests.training.stepping import rows_of
from training.run.loop import train_on
from training.settings.config import TrainConfig

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_run_in_half_precision_resumes(
    view_type: type, make_config: Callable[..., TrainConfig], precision: str
) -> None:
    begun = make_config(steps=2, checkpoint_every=2, mixed_precision=precision)
    train_on(begun, rows_of(view_type()))
    result = train_on(begun.model_copy(update={"steps": 4}), rows_of(view_type()))
    assert (result.steps, result.steps_done) == (4, 2)
    assert result.loss < 10
