import pytest
import torch

from training.model.weight_average import Average

LATE = 10**6  # behind the steps that keep less


def network(value: float) -> torch.nn.Linear:
    layer = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(layer.weight, value)
    layer.bias.requires_grad_(False)
    return layer


def test_the_average_follows_by_its_decay():
    layer = network(1.0)
    average = Average(0.75)
    average.update(layer, LATE)
    torch.nn.init.constant_(layer.weight, 3.0)
    average.update(layer, LATE)
    with average.in_place(layer):
        assert layer.weight.item() == 0.75 * 1.0 + 0.25 * 3.0
    assert layer.weight.item() == 3.0


def test_weights_that_begin_to_learn_start_at_their_value():
    layer = network(1.0)
    average = Average(0.5)
    average.update(layer, LATE)
    torch.nn.init.constant_(layer.bias, 8.0)
    layer.bias.requires_grad_(True)
    average.update(layer, LATE)
    with average.in_place(layer):
        assert layer.bias.item() == 8.0


def test_a_restored_average_goes_on():
    layer = network(1.0)
    average = Average(0.5)
    average.restore(layer)
    torch.nn.init.constant_(layer.weight, 2.0)
    average.update(layer, LATE)
    with average.in_place(layer):
        assert layer.weight.item() == 1.5


def test_early_steps_keep_less():
    layer = network(0.0)
    average = Average(0.999)
    average.update(layer, 1)
    torch.nn.init.constant_(layer.weight, 11.0)
    average.update(layer, 2)
    with average.in_place(layer):
        assert layer.weight.item() == pytest.approx(11.0 * (1 - 3 / 12))
