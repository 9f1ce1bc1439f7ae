"""The running average of the weights that learn."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Average:
    """An exponential moving average of a network's trainable weights, by name.

    Args:
        decay: what is kept a step, 0..1, at the most: early steps keep less, so that the average
            is not that of an untrained network for the first ten thousand.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self._held: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the network's weights; those that are new to it start at their value.

        Args:
            network: whose weights.
            step: optimizer steps done, with this one; from 1.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, weight in _learning(network):
            if name in self._held:
                self._held[name].lerp_(weight, 1 - decay)
            else:
                self._held[name] = weight.detach().clone()

    @contextmanager
    def in_place(self, network: nn.Module) -> Iterator[None]:
        """Let `network` have the averaged weights for as long as the context lasts."""
        kept = {name: weight.detach().clone() for name, weight in _learning(network)}
        _copy(network, self._held)
        try:
            yield
        finally:
            _copy(network, kept)

    def restore(self, network: nn.Module) -> None:
        """Start from the weights of `network`, in which the average was saved."""
        self._held = {name: weight.detach().clone() for name, weight in _learning(network)}


@torch.no_grad()
def _copy(network: nn.Module, values: dict[str, torch.Tensor]) -> None:
    for name, weight in network.named_parameters():
        if name in values:
            weight.copy_(values[name])


def _learning(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, weight) for name, weight in network.named_parameters() if weight.requires_grad)
