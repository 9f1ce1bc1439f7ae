"""Names that the documents had before folders became rooms can still be imported from there."""

import importlib

import pytest


@pytest.mark.parametrize(
    ("earlier", "now", "names"),
    [
        ("training.controlnet", "training.model.base", ["load_base"]),
        ("training.controlnet", "training.model.controlnet", ["load_controlnet"]),
        ("training.controls", "training.sample.controls", ["Conditioned", "Control"]),
        ("training.sampling", "training.sample.sampler", ["sample"]),
        ("training.methods", "training.model.choose", ["load_denoiser"]),
    ],
)
def test_an_earlier_place_holds_the_same(earlier: str, now: str, names: list[str]) -> None:
    before, after = (importlib.import_module(module) for module in (earlier, now))
    for name in names:
        assert getattr(before, name) is getattr(after, name)
