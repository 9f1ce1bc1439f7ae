"""BLIP, ours beside transformers' image-to-text loop: one set of random weights, one run.

    python benchmarks/captioning.py [--images FOLDER] [--count 4] [--rounds 2] [--threads 1]
                                    [--device cpu|cuda] [--precision fp32|bf16] [--batch 1,4]
                                    [--beams 1] [--tokens 20] [--workers 1]

The model has the size of Salesforce/blip-image-captioning-base (transformers' BlipConfig as it is)
and random weights, so it says nonsense, but nearly always of full length: the time is that of real
captions of as many tokens. Both sides get the same 512 x 512 pixels and give texts. The peer is
transformers' processor and generate: one image at a time, as its examples show, and in batches of
the same size. Every figure comes from a process of its own, so that its peak memory is its own; the
sides take turns. On a CPU the time is that of the processor, all threads together, which a busy
machine does not stretch; on a GPU it is that of the clock. Without --images the photographs are
those of scikit-image and matplotlib.
"""

import argparse
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np

if sys.path[0] == str(Path(__file__).parent):
    sys.path.pop(0)  # there this file would hide a package of its name

SIDE = 512
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SEPARATOR = 102  # where BERT's vocabulary has it, and BLIP's configuration expects it
WORDS = 30_522
FLAGS = "images", "model", "count", "threads", "workers", "device", "precision", "beams", "tokens"

Images = list[np.ndarray]
Runner = Callable[[Images], list[str]]


def save_model(folder: Path) -> None:
    """Save a randomly initialised BLIP of base size in the hub's layout."""
    import torch
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
    )

    torch.manual_seed(0)
    model = BlipForConditionalGeneration(BlipConfig())
    with torch.no_grad():  # its own initialisation of the vision half is all but zero
        for weights in model.vision_model.parameters():
            if weights.ndim > 1:
                weights.normal_(std=0.02)
    with redirect_stderr(io.StringIO()):  # a progress bar
        model.save_pretrained(folder)
    names = [f"word{at}" for at in range(WORDS)]
    names[: len(SPECIAL)] = [name for name in SPECIAL if name != "[SEP]"] + ["word"]
    names[SEPARATOR] = "[SEP]"
    BertTokenizer(vocab={name: at for at, name in enumerate(names)}).save_pretrained(folder)
    BlipImageProcessor().save_pretrained(folder)


def read_images(folder: Path, count: int) -> Images:
    from catalog.images import decode_image, fit

    paths = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))
    chosen = [paths[at % len(paths)] for at in range(count)]
    return [fit(decode_image(path.read_bytes()), resolution=SIDE, crop="center") for path in chosen]


def peer(arguments: argparse.Namespace, batch: int) -> Runner:
    """Return transformers' processor and generate, over batches of Pillow images."""
    import torch
    from PIL import Image
    from transformers import (
        AutoTokenizer,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    processor = BlipProcessor(BlipImageProcessor.from_pretrained(arguments.model), tokenizer)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[arguments.precision]
    model = BlipForConditionalGeneration.from_pretrained(arguments.model, dtype=dtype)
    model = model.eval().to(arguments.device)
    how = {"num_beams": arguments.beams, "max_new_tokens": arguments.tokens, "do_sample": False}

    def run(images: Images) -> list[str]:
        texts: list[str] = []
        pictures = [Image.fromarray(image) for image in images]
        for start in range(0, len(pictures), batch):
            inputs = processor(images=pictures[start : start + batch], return_tensors="pt")
            inputs = inputs.to(arguments.device, dtype)
            tokens = model.generate(**inputs, **how)
            texts += processor.batch_decode(tokens, skip_special_tokens=True)
        return texts

    return run


def ours(arguments: argparse.Namespace, batch: int) -> Runner:
    """Return our captioner; pixels are prepared in threads beside it, as in a build."""
    from captioning.blip_network import Blip

    blip = Blip(
        arguments.model,
        arguments.device,
        precision=arguments.precision,
        beams=arguments.beams,
        max_new_tokens=arguments.tokens,
        batch_size=batch,
    )

    def run(images: Images) -> list[str]:
        texts: list[str] = []
        with ThreadPoolExecutor(arguments.workers) as pool:
            prepared = pool.map(blip.prepare, images)
            for start in range(0, len(images), batch):
                some = [next(prepared) for _ in images[start : start + batch]]
                texts += blip(some)
        return texts

    return run


def child(arguments: argparse.Namespace) -> None:
    """Measure one side; prints seconds an image, peak memory and the texts as JSON."""
    import torch

    torch.set_num_threads(arguments.threads)
    batch = int(arguments.batch)
    images = read_images(arguments.images, arguments.count)
    run = (ours if arguments.child == "ours" else peer)(arguments, batch)
    cuda = arguments.device == "cuda"
    now = time.perf_counter if cuda else time.process_time
    if cuda:
        run(images[:batch])
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = now()
    texts = run(images)
    seconds = (now() - start) / len(images)  # texts are on the host: all is done
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if cuda:
        peak = torch.cuda.max_memory_allocated()
    print(json.dumps({"seconds": seconds, "peak": peak, "texts": texts}))


def measure(arguments: argparse.Namespace, side: str, batch: int) -> dict[str, Any]:
    line = [sys.executable, __file__, "--child", side, "--batch", str(batch)]
    for flag in FLAGS:
        line += [f"--{flag}", str(getattr(arguments, flag))]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(arguments: argparse.Namespace, batch: int) -> str:
    """Return a row: the loop, transformers' batches and ours, as medians over the rounds."""
    rounds = [
        [measure(arguments, *one) for one in (("peer", 1), ("peer", batch), ("ours", batch))]
        for _ in range(arguments.rounds)
    ]
    loop, theirs, mine = (
        1 / statistics.median(one[at]["seconds"] for one in rounds) for at in range(3)
    )
    peaks = [max(one[at]["peak"] for one in rounds) / 2**20 for at in (1, 2)]
    pairs = list(zip(rounds[0][0]["texts"], rounds[0][2]["texts"], strict=True))
    same = sum(one == other for one, other in pairs)
    return (
        f"{batch:>5} {loop:>10.3f} {theirs:>13.3f} {mine:>10.3f} {mine / loop:>8.2f}x "
        f"{mine / theirs:>10.2f}x {peaks[0]:>10.0f} {peaks[1]:>8.0f} {same:>6} of {len(pairs)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--workers", type=int, default=1, help="threads that prepare pixels")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--batch", default="1,4")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.child:
        child(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments.model = Path(folder) / "random-blip-base"
        save_model(arguments.model)
        if arguments.images is None:
            from pipeline.demo.photographs import collect

            arguments.images = Path(folder) / "images"
            arguments.images.mkdir()
            collect(arguments.images)
        print(
            f"BLIP of base size, random weights; {arguments.count} images of {SIDE} x {SIDE}, "
            f"{arguments.device}, {arguments.precision}, {arguments.beams} beam(s), "
            f"{arguments.tokens} tokens, {arguments.threads} thread(s), "
            f"median of {arguments.rounds}; "
            f"seconds of {'the clock' if arguments.device == 'cuda' else 'processor time'}"
        )
        print(
            "batch loop img/s batched img/s  our img/s to loop  to batched  their MiB  our MiB"
            "  same texts"
        )
        for batch in map(int, arguments.batch.split(",")):
            print(compare(arguments, batch), flush=True)


if __name__ == "__main__":
    main()
