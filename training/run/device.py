"""What is chosen for a GPU where nobody stated it."""

from pathlib import Path
from typing import Any

import torch

from training.run.folder import read_settings
from training.settings.config import TrainConfig

_ON_GPU = {"mixed_precision": "bf16", "optimizer": "adamw_fused", "num_workers": 4}


def for_device(config: TrainConfig) -> tuple[TrainConfig, str | None]:
    """Return the settings for the device found here, and what was chosen; None for a CPU.

    A run that is resumed keeps what it was begun with. On a GPU, products in fp32 use TF32.
    """
    if not torch.cuda.is_available():
        return config, None
    torch.set_float32_matmul_precision("high")
    begun = read_settings(Path(config.out)) or {"identity": {}}
    stated = {*config.model_fields_set, *begun["identity"]}
    chosen: dict[str, Any] = {name: value for name, value in _ON_GPU.items() if name not in stated}
    told = ", ".join(f"{name} {value}" for name, value in chosen.items())
    return config.model_copy(update=chosen), f"{told or 'nothing chosen'}; TF32 in fp32 products"
