"""Detectors' networks for gpu.py: the real weights where they are at hand, else random ones.

Random weights have the published networks' sizes, so that a network's time is the real one's.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from detectors import weights
from detectors.base import Spec
from detectors.depth import DepthSpec
from detectors.depth_anything import DepthAnythingSpec
from detectors.hed import HedSpec
from detectors.lineart_anime import LineartAnimeSpec
from detectors.mlsd import MlsdSpec
from detectors.normal import NormalBaeSpec
from detectors.openpose import OpenposeSpec
from detectors.pidinet import PidinetSpec
from detectors.runtimes.on_torch import quietly
from detectors.segmentation import SegEomtSpec, SegUperNetSpec
from detectors.teed import TeedSpec

SPECS: dict[str, Spec] = {
    "hed": HedSpec(),
    "pidinet": PidinetSpec(),
    "teed": TeedSpec(),
    "mlsd": MlsdSpec(),
    "openpose": OpenposeSpec(),
    "midas": DepthSpec(),
    "depth_anything": DepthAnythingSpec(),
    "normal_bae": NormalBaeSpec(),
    "upernet": SegUperNetSpec(),
    "eomt": SegEomtSpec(),
    "anime2sketch": LineartAnimeSpec(),
}
"""By the module of `detectors.networks` that holds the network."""

_NAMES = {"midas": "depth", "anime2sketch": "lineart_anime"}  # in detectors.py


def prepare(module: str, folder: Path, peers: Any, *, quick: bool = False) -> str:
    """See to it that a network can be loaded; return ``real`` or ``random``.

    Args:
        module: of `SPECS`.
        folder: for what random weights take.
        peers: the module of detectors.py, which has controlnet_aux's own layers.
        quick: take a fraction of the layers of the largest, EoMT.
    """
    network = SPECS[module].network
    assert network is not None, module
    if all(weights.where(name) is not None for name in network.checkpoints):
        return "real"
    torch.manual_seed(0)
    loaded = import_module(f"detectors.networks.{module}")
    if module in (*_FOLDERS, "eomt"):
        with quietly():
            if module == "eomt":
                _eomt(folder / module, layers=5 if quick else 24)
            else:
                _FOLDERS[module](folder / module)
        loaded.resolve = lambda name: folder / module
        return "random"
    if module in _STATES:
        with quietly():
            state = _STATES[module]()
    else:
        state = peers.weights_of(_NAMES.get(module, module))[0]
    loaded.load_state_dict = lambda checkpoint: state
    return "random"


def _pidinet() -> dict[str, Any]:
    from controlnet_aux.pidi.model import PiDiNet, nets

    return dict(PiDiNet(60, list(nets["carv4"].values()), dil=24, sa=True).state_dict())


def _teed() -> dict[str, Any]:
    from controlnet_aux.teed.ted import TED

    return dict(TED().state_dict())


def _normal_bae() -> dict[str, Any]:
    from controlnet_aux.normalbae.nets.NNET import NNET

    how = SimpleNamespace(architecture="BN", sampling_ratio=0.4, importance_ratio=0.7)
    return dict(NNET(how).state_dict())


def _depth_anything(folder: Path) -> None:
    """Write Depth Anything V2's small network."""
    from transformers import (
        DepthAnythingConfig,
        DepthAnythingForDepthEstimation,
        Dinov2Config,
        DPTImageProcessor,
    )

    backbone = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        out_indices=[3, 6, 9, 12],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=384,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
    )
    DepthAnythingForDepthEstimation(config).save_pretrained(folder)
    DPTImageProcessor(
        size={"height": 518, "width": 518}, ensure_multiple_of=14, keep_aspect_ratio=True,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)  # fmt: skip


def _upernet(folder: Path) -> None:
    """Write UperNet on ConvNeXt's small network."""
    from transformers import (
        ConvNextConfig,
        SegformerImageProcessor,
        UperNetConfig,
        UperNetForSemanticSegmentation,
    )

    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = ConvNextConfig(
        depths=[3, 3, 27, 3], hidden_sizes=[96, 192, 384, 768], out_features=stages
    )
    config = UperNetConfig(backbone_config=backbone, num_labels=150, auxiliary_in_channels=384)
    UperNetForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor(size={"height": 512, "width": 512}).save_pretrained(folder)


def _eomt(folder: Path, *, layers: int) -> None:
    """Write EoMT on DINOv2's large network, for squares of 512, with so many of its 24 layers."""
    from transformers import EomtConfig, EomtForUniversalSegmentation, EomtImageProcessor

    config = EomtConfig(
        num_hidden_layers=layers, image_size=512, num_queries=100, num_labels=150
    )  # the others are DINOv2 large's by default
    net = EomtForUniversalSegmentation(config)
    net.attn_mask_probs.zero_()  # as after training: queries look at every patch
    net.save_pretrained(folder)
    EomtImageProcessor(
        size={"shortest_edge": 512, "longest_edge": None}, do_split_image=True
    ).save_pretrained(folder)


_STATES: dict[str, Callable[[], dict[str, Any]]] = {
    "pidinet": _pidinet,
    "teed": _teed,
    "normal_bae": _normal_bae,
}
_FOLDERS: dict[str, Callable[[Path], None]] = {
    "depth_anything": _depth_anything,
    "upernet": _upernet,
}
