"""Networks of the detectors, ours beside a loop over controlnet_aux: one set of weights and images.

    python benchmarks/detectors.py [--images FOLDER] [--count 4] [--rounds 3] [--threads 1]
                                   [--device cpu|cuda] [--precision fp32|fp16|bf16] [--batch 1,8,32]

Every figure comes from a process of its own, so that its peak memory is its own; the two sides take
turns. Both get the same 512 x 512 pixels and make maps out of them. A checkpoint that is not on
this machine is replaced by random weights on BOTH sides, and the row says so: that changes no time
of a network, but that of what is done with its findings (lines, people). Without --images the
photographs are those of scikit-image and matplotlib.
"""

import argparse
import functools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

if sys.path[0] == str(Path(__file__).parent):
    sys.path.pop(0)  # there this file would hide the package of its name

SIDE = 512
TOGETHER = ("hed", "scribble", "depth", "normal", "canny")
NETWORKS = ("hed", "mlsd", "openpose", "depth", "lineart_anime")
CHECKPOINTS = {
    "hed": "hed_bsds500",
    "mlsd": "mlsd_large",
    "openpose": "openpose_body",
    "depth": "midas_dpt_hybrid",
    "lineart_anime": "anime2sketch",
}

Images = list[np.ndarray]
Runner = Callable[[Images], Any]


def read_images(folder: Path, count: int) -> Images:
    from catalog.images import decode_image, fit

    paths = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))
    chosen = [paths[at % len(paths)] for at in range(count)]
    return [fit(decode_image(path.read_bytes()), resolution=SIDE, crop="center") for path in chosen]


def upstream_layers(name: str) -> Any:
    """Return controlnet_aux's own network, with random weights from one seed."""
    import torch

    torch.manual_seed(0)
    if name == "hed":
        from controlnet_aux.hed import ControlNetHED_Apache2 as Net
    elif name == "mlsd":
        from controlnet_aux.mlsd.models.mbv2_mlsd_large import MobileV2_MLSD_Large as Net
    elif name == "openpose":
        from controlnet_aux.open_pose.model import bodypose_model as Net
    elif name == "depth":
        from controlnet_aux.midas.midas.dpt_depth import DPTDepthModel

        return DPTDepthModel(backbone="vitb_rn50_384", non_negative=True)
    else:
        from controlnet_aux.lineart_anime import UnetGenerator

        norm = functools.partial(torch.nn.InstanceNorm2d, affine=False, track_running_stats=False)
        return UnetGenerator(3, 1, 8, 64, norm_layer=norm, use_dropout=False)
    return Net()


def weights_of(name: str) -> tuple[dict[str, Any], bool]:
    """Return a state dict in the layout of the checkpoint, and whether it is the real one."""
    from detectors import weights

    checkpoint = CHECKPOINTS[name]
    if weights.where(checkpoint) is not None:
        return weights.load_state_dict(checkpoint), True
    state = upstream_layers(name).state_dict()
    if name == "openpose":  # the file's names lack the first part of the module's
        state = {".".join(key.split(".")[1:]): value for key, value in state.items()}
    return state, False


def peer(name: str, device: str) -> Runner:
    """Return controlnet_aux's detector as a loop of one image at a time, as its users run it."""
    net = upstream_layers(name)
    state, _ = weights_of(name)
    common = {"detect_resolution": SIDE, "image_resolution": SIDE, "output_type": "np"}
    if name == "openpose":
        from controlnet_aux.open_pose import OpenposeDetector, util
        from controlnet_aux.open_pose.body import Body

        body = Body.__new__(Body)
        net.load_state_dict(util.transfer(net, state))
        body.model = net.eval().to(device)
        detector: Any = OpenposeDetector(body)
    else:
        net.load_state_dict(state)
        net.eval().to(device)
        if name == "hed":
            from controlnet_aux.hed import HEDdetector as Kind
        elif name == "mlsd":
            from controlnet_aux.mlsd import MLSDdetector as Kind
        elif name == "depth":
            from controlnet_aux.midas import MidasDetector as Kind
        else:
            from controlnet_aux.lineart_anime import LineartAnimeDetector as Kind
        detector = Kind(net)
    return lambda images: [detector(image, **common) for image in images]


def graph_of(names: tuple[str, ...], device: str, precision: str, batch: int) -> Any:
    """Return our graph and its specs, with the same weights as the peer."""
    from detectors.graph import Graph
    from pipeline.sheet.sheet import specs_of

    for module in ("hed", "mlsd", "openpose", "midas", "anime2sketch"):
        __import__(f"detectors.networks.{module}")
        loaded = sys.modules[f"detectors.networks.{module}"]
        loaded.load_state_dict = _either  # type: ignore[attr-defined]
    specs = specs_of(names)
    return Graph(specs, device=device, precision=precision, micro_batch=batch), specs


def _either(checkpoint: str) -> dict[str, Any]:
    name = next(name for name, known in CHECKPOINTS.items() if known == checkpoint)
    return weights_of(name)[0]


def ours(names: tuple[str, ...], device: str, precision: str, batch: int) -> Runner:
    from detectors.graph import annotate

    graph, specs = graph_of(names, device, precision, batch)

    def run(images: Images) -> list[Any]:
        made = []
        for start in range(0, len(images), batch):
            some = images[start : start + batch]
            for image, findings in zip(some, graph.run(some), strict=True):
                draws = np.random.default_rng(0)
                made += [annotate(spec, image, findings, draws) for spec in specs]
        return made

    return run


def child(arguments: argparse.Namespace) -> None:
    """Measure one side; prints seconds an image and peak memory as JSON."""
    import torch

    torch.set_num_threads(arguments.threads)
    device, batch = arguments.device, int(arguments.batch)
    names = tuple(arguments.names.split(","))
    images = read_images(arguments.images, arguments.count)
    if arguments.child == "peer":
        run = peer(names[0], device)
    else:
        run = ours(names, device, arguments.precision, batch)
    run(images[:batch])
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    run(images)
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / len(images)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    print(json.dumps({"seconds": seconds, "peak": peak}))


def measure(arguments: argparse.Namespace, side: str, names: str, batch: int) -> dict[str, float]:
    line = [sys.executable, __file__, "--child", side, "--names", names, "--batch", str(batch)]
    for flag in ("images", "count", "threads", "device", "precision"):
        line += [f"--{flag}", str(getattr(arguments, flag))]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(arguments: argparse.Namespace, name: str, batch: int) -> str:
    rounds = [
        [measure(arguments, side, name, batch) for side in ("peer", "ours")]
        for _ in range(arguments.rounds)
    ]
    theirs, ours_ = (statistics.median(r[at]["seconds"] for r in rounds) for at in (0, 1))
    peaks = [max(r[at]["peak"] for r in rounds) / 2**20 for at in (0, 1)]
    kind = "real" if weights_of(name)[1] else "random"
    return (
        f"{name:<14} {kind:<7} {batch:>5} {1 / theirs:>9.3f} {1 / ours_:>9.3f} "
        f"{theirs / ours_:>7.2f}x {peaks[0]:>8.0f} {peaks[1]:>8.0f}"
    )


def fraction_of_peak(arguments: argparse.Namespace, name: str, batch: int, seconds: float) -> float:
    """Return the network's arithmetic a second over that of a large matrix product."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    size, device = 8192, arguments.device
    a = torch.randn(size, size, device=device, dtype=dtype[arguments.precision])
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
    peak = 20 * 2 * size**3 / (time.perf_counter() - start)
    graph, _ = graph_of((name,), device, arguments.precision, batch)
    images = read_images(arguments.images, 1)
    with FlopCounterMode(display=False) as counter:
        graph.run(images)
    return float(counter.get_total_flops() / seconds / peak)


def together(arguments: argparse.Namespace, batch: int) -> str:
    rounds = []
    for _ in range(arguments.rounds):
        alone = sum(measure(arguments, "ours", name, batch)["seconds"] for name in TOGETHER)
        rounds.append((alone, measure(arguments, "ours", ",".join(TOGETHER), batch)["seconds"]))
    alone, once = (statistics.median(r[at] for r in rounds) for at in (0, 1))
    return (
        f"{', '.join(TOGETHER)}: {alone:.2f} s an image apart, {once:.2f} s together: "
        f"{once / alone:.0%} of the cost"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--batch", default="1")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--names", default=",".join(NETWORKS))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # importing controlnet_aux gives two dozen
    if arguments.child:
        child(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        if arguments.images is None:
            from pipeline.demo.photographs import collect

            arguments.images = Path(folder)
            collect(arguments.images)
        print(
            f"{arguments.count} images of {SIDE} x {SIDE}, {arguments.device}, "
            f"{arguments.precision}, {arguments.threads} thread(s), median of {arguments.rounds}"
        )
        print("network        weights batch  aux img/s our img/s   ratio  aux MiB  our MiB")
        for name in arguments.names.split(","):
            for batch in map(int, arguments.batch.split(",")):
                print(compare(arguments, name, batch), flush=True)
                if arguments.device == "cuda":
                    seconds = measure(arguments, "ours", name, batch)["seconds"]
                    share = fraction_of_peak(arguments, name, batch, seconds)
                    print(f"{'':<22} {share:.1%} of the device's measured peak", flush=True)
        print(together(arguments, max(map(int, arguments.batch.split(",")))))


if __name__ == "__main__":
    main()
