"""Measure the base, and a ControlNet on it: are the colours and shapes there that the prompt names?

    python examples/shapes/measure.py [--base FOLDER] [--controlnet RUN] [--out sheet.png]

paints the captions of new pictures with bare diffusers, and prints a table as Markdown. Each kind
of picture is measured against the captions of other pictures as well: what is right by chance.
"""

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
)
from draw import SIDE, Picture, draw_picture
from PIL import Image
from recognise import recognise

from catalog.png import encode_png
from catalog.publish.grid import draw_grid, enlarged
from training.measure.map_likeness import line_f1

_STEPS = 20
_SHOWN = 12


def main() -> None:
    """Read the arguments, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, default=Path(__file__).parent / "base")
    parser.add_argument("--controlnet", type=Path, help="a run on it, painted with as well")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1000, help="of the pictures; 0 was trained on")
    parser.add_argument("--guidance", type=float, nargs="+", default=[2.0, 4.0, 7.0])
    parser.add_argument("--out", type=Path, help=f"a sheet of {_SHOWN} pictures, as PNG")
    arguments = parser.parse_args()
    pictures = [
        draw_picture(np.random.default_rng((arguments.seed, number)))
        for number in range(arguments.samples)
    ]
    made = {"drawn": [picture.image for picture in pictures]}
    made["autoencoder"] = reconstruct(arguments.base, made["drawn"])
    for scale in arguments.guidance:
        made[f"base, guidance {scale:g}"] = paint(arguments.base, pictures, scale)
    if arguments.controlnet is not None:
        for scale in arguments.guidance:
            made[f"ControlNet, guidance {scale:g}"] = paint(
                arguments.base, pictures, scale, arguments.controlnet
            )
    print("\n".join(table(pictures, made)))
    if arguments.out is not None:
        arguments.out.write_bytes(encode_png(sheet(pictures, made)))


def reconstruct(base: Path, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the images through the autoencoder."""
    vae = AutoencoderKL.from_pretrained(base / "vae", torch_dtype=torch.float32).eval()
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample
    levels = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte()
    return list(levels.permute(0, 2, 3, 1).numpy())


def paint(
    base: Path, pictures: Sequence[Picture], scale: float, controlnet: Path | None = None
) -> list[np.ndarray]:
    """Paint captions, with the pictures' edges as condition where there is a ControlNet.

    Args:
        base: folder.
        pictures: whose captions, and edges.
        scale: of classifier-free guidance.
        controlnet: folder of a run.
    """
    keys = {"torch_dtype": torch.float32, "safety_checker": None}
    hints = {}
    if controlnet is None:
        pipeline = StableDiffusionPipeline.from_pretrained(base, **keys)
    else:
        network = ControlNetModel.from_pretrained(controlnet, torch_dtype=torch.float32)
        pipeline = StableDiffusionControlNetPipeline.from_pretrained(
            base, controlnet=network, **keys
        )
        hints["image"] = [
            Image.fromarray(np.repeat(edges(picture.image)[:, :, None], 3, axis=2))
            for picture in pictures
        ]
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    painted = pipeline(
        [picture.caption for picture in pictures],
        **hints,
        height=SIDE,
        width=SIDE,
        num_inference_steps=_STEPS,
        guidance_scale=scale,
        generator=[torch.Generator().manual_seed(number) for number in range(len(pictures))],
        output_type="np",
    ).images
    return list((painted * 255).round().astype(np.uint8))


def edges(image: np.ndarray) -> np.ndarray:
    """Return Canny's edges at its customary thresholds, 0 and 255, uint8 (h, w)."""
    return np.asarray(cv2.Canny(image, 100, 200), np.uint8)


def table(pictures: Sequence[Picture], made: Mapping[str, Sequence[np.ndarray]]) -> Iterator[str]:
    """Yield the lines of the table; in brackets stands what is right by chance.

    Args:
        pictures: that were drawn.
        made: kind of picture -> one of each.
    """
    yield "| pictures | colours | shapes | shapes in their colours | edges, F1 (1 px) | PSNR |"
    yield "|---|---:|---:|---:|---:|---:|"
    others = [*pictures[1:], pictures[0]]
    for kind, images in made.items():
        found = [recognise(image) for image in images]
        shares = zip(named(pictures, found), named(others, found), strict=True)
        scores = [
            line_f1(edges(picture.image), edges(image), 1)
            for picture, image in zip(pictures, images, strict=True)
        ]
        error = np.square(np.stack(images) - np.stack([p.image for p in pictures], dtype=float))
        noise = "" if not error.any() else f"{10 * np.log10(255**2 / error.mean()):.1f} dB"
        words = [f"{share:.1%} ({chance:.0%})" for share, chance in shares]
        yield f"| {' | '.join([kind, *words, f'{np.mean(scores):.3f}', noise])} |"


def named(
    pictures: Sequence[Picture], found: Sequence[Mapping[str, str]]
) -> tuple[float, float, float]:
    """Return which shares of the captions' colours, shapes, and shapes in their colours are there.

    Args:
        pictures: whose captions are asked for.
        found: what `recognise` found in the pictures that were made of them.
    """
    colours = shapes = both = count = 0
    for picture, seen in zip(pictures, found, strict=True):
        wanted = Counter(shape.kind for shape in picture.shapes)
        count += wanted.total()
        colours += sum(shape.colour in seen for shape in picture.shapes)
        shapes += (wanted & Counter(seen.values())).total()
        both += sum(seen.get(shape.colour) == shape.kind for shape in picture.shapes)
    return colours / count, shapes / count, both / count


def sheet(pictures: Sequence[Picture], made: Mapping[str, Sequence[np.ndarray]]) -> np.ndarray:
    """Draw the first pictures: a row a caption, a column a kind of picture."""
    cells = [enlarged([images[row] for images in made.values()]) for row in range(_SHOWN)]
    captions = [picture.caption for picture in pictures[:_SHOWN]]
    return draw_grid(cells, columns=list(made), rows=captions)


if __name__ == "__main__":
    main()
