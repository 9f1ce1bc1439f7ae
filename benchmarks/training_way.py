"""One way of benchmarks/training.py, in a process of its own; see there.

    python benchmarks/training_way.py '{"way": ..., "settings": {...}}'

The last line that it prints is what it found, as JSON: when each step ended (s), the memory before
the way began, and at its peak (MiB).
"""

import json
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if sys.path[0] == str(Path(__file__).parent):
    sys.path.pop(0)  # there benchmarks would hide the packages of their names

import torch
import torch.nn.functional as F
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import nn

from training.model.denoiser import Controlled
from training.run.loop import train
from training.settings.config import TrainConfig

SD_WIDTHS, SD_TEXT = (320, 640, 1280, 1280), 768
MIB = 1 << 20


class Clock:
    """Remembers when it was called, on the wall's clock and the processor's; seconds."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.cpu_times: list[float] = []

    def __call__(self, *unused: object) -> None:
        self.times.append(time.perf_counter())
        self.cpu_times.append(time.process_time())


def run_script(clock: Clock, script: str, arguments: list[str]) -> None:
    """Run diffusers' script, which logs once a step, after it has waited for the loss."""
    from accelerate import Accelerator

    log = Accelerator.log

    def timed_log(*values: Any, **named: Any) -> None:
        clock()
        log(*values, **named)

    Accelerator.log = timed_log
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def run_ours(clock: Clock, **settings: Any) -> None:
    train(TrainConfig(**settings), clock)


class FineTuned(nn.Module):
    """The UNet alone, called like a denoiser."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet.train()

    def forward(self, noisy: Any, timesteps: Any, text: Any, hint: Any) -> torch.Tensor:
        return self.unet(noisy, timesteps, text).sample


def make_unet(widths: tuple[int, ...], text: int) -> UNet2DConditionModel:
    """Return a UNet with random weights and Stable Diffusion 1.5's layers."""
    return UNet2DConditionModel(
        block_out_channels=widths, cross_attention_dim=text, attention_head_dim=8
    )


def run_steps(clock: Clock, *, kind: str, gpu: bool, batch: int, resolution: int, steps: int):
    device = "cuda" if gpu else "cpu"
    text = SD_TEXT if gpu else SD_TEXT // 5 // 8 * 8
    unet = make_unet(SD_WIDTHS if gpu else tuple(width // 5 for width in SD_WIDTHS), text)
    if kind == "unet":
        denoiser: nn.Module = FineTuned(unet)
    else:
        controlnet = ControlNetModel.from_unet(unet)
        locked = unet.to(torch.bfloat16) if gpu else unet
        denoiser = Controlled(locked, controlnet, trains=kind)
    denoiser.to(device)
    learning = [weight for weight in denoiser.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-5)
    side = resolution // 8
    noisy = torch.randn(batch, 4, side, side, device=device)
    timesteps = torch.randint(1000, (batch,), device=device)
    context = torch.randn(batch, 77, text, device=device)
    hint = torch.rand(batch, 3, resolution, resolution, device=device)
    for _ in range(steps):
        with torch.autocast(device, torch.bfloat16, enabled=gpu):
            predicted = denoiser(noisy, timesteps, context, hint)
            loss = F.mse_loss(predicted.float(), torch.randn_like(noisy))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        clock()


def peak_memory() -> float:
    """Return what torch allocated at most on the GPU; without one, this process; MiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / MIB
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    description = json.loads(sys.argv[1])
    ways: dict[str, Callable[..., None]] = {
        "script": run_script,
        "ours": run_ours,
        "steps": run_steps,
    }
    clock = Clock()
    before = 0.0 if torch.cuda.is_available() else peak_memory()
    ways[description["way"]](clock, **description["settings"])
    print(json.dumps({**vars(clock), "before": before, "peak": peak_memory()}))


if __name__ == "__main__":
    main()
