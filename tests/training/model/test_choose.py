from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from tests.training.stepping import rows_of
from training.errors import ControlNetError
from training.model.base import fingerprint, load_base
from training.model.choose import load_denoiser, new_denoiser
from training.model.concat_baseline import Concat
from training.model.controlnet import load_controlnet
from training.model.denoiser import Controlled
from training.model.hint_encoder import PaperControlNet
from training.run.checkpoint import list_checkpoints
from training.run.loop import train_on
from training.watch.reports import StepReport

DATASET = "da7a"


def trained_weights(folder: Path, base) -> str:
    networks = [network for _, network in load_denoiser(folder, base).networks()]
    return fingerprint(networks)


@pytest.mark.parametrize("change", [{"method": "concat"}, {"hint_encoder": "paper"}])
def test_a_run_of_either_kind_learns_and_resumes_bit_for_bit(
    make_config, view_type, base, tmp_path, change
):
    reports: dict[str, list[StepReport]] = {"straight": [], "parts": []}
    straight = make_config(out=str(tmp_path / "straight"), **change)
    train_on(straight, rows_of(view_type()), reports["straight"].append)
    for steps in (2, 4):
        part = make_config(out=str(tmp_path / "parts"), steps=steps, **change)
        train_on(part, rows_of(view_type()), reports["parts"].append)

    losses = {name: [report.loss for report in found] for name, found in reports.items()}
    assert losses["straight"] == losses["parts"]
    untrained = list_checkpoints(tmp_path / "straight")[0].folder
    end = trained_weights(tmp_path / "straight", base)
    assert end == trained_weights(tmp_path / "parts", base)
    assert end != trained_weights(untrained, base)
    assert fingerprint(base.networks) == fingerprint(load_base(straight.base).networks)


def test_a_run_folder_tells_what_it_holds(make_config, view_type, base, tmp_path):
    for name, change in (("c", {"method": "concat"}), ("p", {"hint_encoder": "paper"})):
        config = make_config(out=str(tmp_path / name), steps=1, **change)
        train_on(config, rows_of(view_type()), lambda report: None)
    assert type(load_denoiser(tmp_path / "c", base)) is Concat
    assert type(load_denoiser(tmp_path / "p", base)) is Controlled
    assert type(load_controlnet(str(tmp_path / "p"))) is PaperControlNet
    with pytest.raises(ControlNetError, match="holds no ControlNet"):
        load_denoiser(tmp_path, base)


def test_the_baseline_trains_in_fp32_whatever_the_bases_precision(make_config, base):
    config = make_config(method="concat")
    low = load_base(config.base, dtype=torch.bfloat16)
    (group,) = new_denoiser(config, low).groups()
    assert {weight.dtype for weight in group} == {torch.float32}
    exact = [network for _, network in new_denoiser(config, base).networks()]
    assert fingerprint([new_denoiser(config, low).unet]) == fingerprint(exact)


def test_a_unet_of_another_shape_is_no_baseline(base, tmp_path):
    base.unet.save_pretrained(tmp_path / "unet")
    with pytest.raises(ControlNetError, match=r"has 4 input channels"):
        load_denoiser(tmp_path, base)


def test_the_baseline_has_neither_phases_nor_a_controlnet_to_start_from(make_config):
    with pytest.raises(ValidationError, match="leave phases out"):
        make_config(
            method="concat", phases=[{"trains": "mid_only", "until": 1}, {"trains": "full"}]
        )
    with pytest.raises(ValidationError, match="leave start_from out"):
        make_config(method="concat", start_from="runs/canny")
