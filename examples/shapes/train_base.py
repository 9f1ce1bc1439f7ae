"""Train the base of the examples on shapes: an autoencoder first, then text encoder and UNet.

    python examples/shapes/train_base.py --out base

writes a text-to-image model in Stable Diffusion's layout, in fp16, that bare diffusers loads. It
takes about an hour on two CPU cores, and minutes on a GPU. The autoencoder is kept in
OUT/vae as soon as it is trained: the same command again goes on from there.

    python examples/shapes/train_base.py --start-from base --seed 1 --rate 5e-4 --out better

trains text encoder and UNet of such a base further, on other pictures.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import EMAModel, compute_snr
from draw import COLOURS, CORNERS, draw_picture
from networks import new_autoencoder, new_text_encoder, new_tokenizer, new_unet
from transformers import CLIPTextModel, CLIPTokenizer

from training.model.tiny_parts import noise_levels
from training.sample.prompts import DEFAULT_PROMPT

_WORDS = [*COLOURS, *CORNERS, "a an and", DEFAULT_PROMPT]
_SQUARES = 4.0  # weight of the squared error: shapes are few pixels, absolute errors miss them
_EDGES = 0.5  # weight of the error of the pictures' differences: borders must stay sharp
_KL = 1e-6  # weight of the latents' summed divergence from a normal
_EMPTY = 0.1  # share of empty captions, for classifier-free guidance
_SNR_CAP = 5.0  # min-SNR weighting
_AVERAGED = 0.998  # decay of the averaged weights


def main() -> None:
    """Read the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the base")
    parser.add_argument("--autoencoder-steps", type=int, default=1600)
    parser.add_argument("--steps", type=int, default=5500, help="of text encoder and UNet")
    parser.add_argument("--pictures", type=int, default=30_000, help="that the UNet sees")
    parser.add_argument("--rate", type=float, default=1e-3, help="the highest, of the UNet")
    parser.add_argument("--start-from", type=Path, help="a base to train further")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    kept = (arguments.start_from or arguments.out) / "vae"
    if arguments.start_from is not None or (kept / "config.json").is_file():
        autoencoder = AutoencoderKL.from_pretrained(kept, torch_dtype=torch.float32)
    else:
        autoencoder = train_autoencoder(arguments)
        autoencoder.half().save_pretrained(kept)
    autoencoder = autoencoder.float().to(arguments.device).eval().requires_grad_(False)
    train_unet(autoencoder, arguments)


def pixels(images: list[np.ndarray]) -> torch.Tensor:
    """Stack RGB pictures 0..255 into a tensor -1..1, (b, 3, h, w)."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def batches(seed: int, size: int) -> Iterator[torch.Tensor]:
    """Yield new pictures without end."""
    generator = np.random.default_rng((seed, 1))
    while True:
        yield pixels([draw_picture(generator).image for _ in range(size)])


def train_autoencoder(arguments: argparse.Namespace) -> AutoencoderKL:
    """Train on errors of pixels and of edges; return it with its scaling factor set."""
    network = new_autoencoder().to(arguments.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.99))
    steps = arguments.autoencoder_steps
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    stream, clock = batches(arguments.seed, 16), time.monotonic()
    for step in range(1, steps + 1):
        images = next(stream).to(arguments.device)
        posterior = network.encode(images).latent_dist
        made = network.decode(posterior.sample()).sample
        error = _SQUARES * F.mse_loss(made, images) + _EDGES * edge_error(made, images)
        loss = error + _KL * posterior.kl().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % 50 == 0:
            print(
                f"autoencoder {step}/{steps}: {error.item():.4f}, {_each(clock, step)}", flush=True
            )
    with torch.no_grad():
        latents = network.encode(next(stream).to(arguments.device)).latent_dist.sample()
    network.register_to_config(scaling_factor=round(1 / float(latents.std()), 4))
    return network


def edge_error(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Return the mean error of the differences between neighbouring pixels."""
    error = made - wanted
    across, down = error.diff(dim=-1).abs().mean(), error.diff(dim=-2).abs().mean()
    return across + down


@torch.no_grad()
def encode(
    autoencoder: AutoencoderKL, arguments: argparse.Namespace
) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Draw the pictures to learn from; return their latents' means and deviations, and captions."""
    generator = np.random.default_rng((arguments.seed, 2))
    means, deviations, captions = [], [], []
    for _ in range(0, arguments.pictures, 50):
        drawn = [draw_picture(generator) for _ in range(50)]
        images = pixels([picture.image for picture in drawn]).to(arguments.device)
        posterior = autoencoder.encode(images).latent_dist
        means.append(posterior.mean.half())
        deviations.append(posterior.std.half())
        captions += [picture.caption for picture in drawn]
    return torch.cat(means), torch.cat(deviations), captions


def parts_to_train(
    base: Path | None,
) -> tuple[CLIPTokenizer, CLIPTextModel, UNet2DConditionModel]:
    """Return tokenizer, text encoder and UNet: new ones, or those of a base, in fp32."""
    if base is None:
        tokenizer = new_tokenizer(_WORDS)
        return tokenizer, new_text_encoder(tokenizer), new_unet()
    loaded = StableDiffusionPipeline.from_pretrained(
        base, torch_dtype=torch.float32, safety_checker=None
    )
    return loaded.tokenizer, loaded.text_encoder.train(), loaded.unet.train()


def train_unet(autoencoder: AutoencoderKL, arguments: argparse.Namespace) -> None:
    """Train text encoder and UNet on the noise of the latents; save their averaged weights."""
    device, steps, size = arguments.device, arguments.steps, 32
    tokenizer, text_encoder, unet = parts_to_train(arguments.start_from)
    text_encoder, unet, scheduler = text_encoder.to(device), unet.to(device), noise_levels()
    parts = torch.nn.ModuleList([text_encoder, unet])
    averaged = EMAModel(parts.parameters(), decay=_AVERAGED)
    highest = arguments.rate
    optimizer = torch.optim.AdamW(parts.parameters(), lr=highest, betas=(0.9, 0.99))
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, highest, total_steps=steps, pct_start=0.05
    )
    means, deviations, captions = encode(autoencoder, arguments)
    ids = tokenizer(captions, padding="max_length", return_tensors="pt").input_ids.to(device)
    empty = tokenizer("", padding="max_length", return_tensors="pt").input_ids.to(device)
    factor, clock, losses = autoencoder.config.scaling_factor, time.monotonic(), []
    for step in range(1, steps + 1):
        rows = torch.randint(len(means), (size,), device=device)
        sampled = means[rows].float() + deviations[rows].float() * torch.randn_like(
            means[rows].float()
        )
        tokens = torch.where(torch.rand(size, 1, device=device) < _EMPTY, empty, ids[rows])
        noise = torch.randn_like(sampled)
        times = torch.randint(scheduler.config.num_train_timesteps, (size,), device=device)
        noisy = scheduler.add_noise(sampled * factor, noise, times)
        predicted = unet(noisy, times, text_encoder(tokens)[0]).sample
        snr = compute_snr(scheduler, times)
        weight = snr.clamp(max=_SNR_CAP) / snr
        loss = ((predicted - noise).square().mean(dim=(1, 2, 3)) * weight).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        rate.step()
        averaged.step(parts.parameters())
        losses.append(loss.item())
        if step % 50 == 0:
            mean = np.mean(losses[-50:])
            print(f"unet {step}/{steps}: loss {mean:.4f}, {_each(clock, step)}", flush=True)
        if step % 1000 == 0 or step == steps:
            averaged.store(parts.parameters())
            averaged.copy_to(parts.parameters())
            save(arguments.out, autoencoder, tokenizer, text_encoder, unet)
            averaged.restore(parts.parameters())


def save(out: Path, autoencoder, tokenizer, text_encoder, unet) -> None:
    """Write the base in fp16."""
    StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=noise_levels(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(dtype=torch.float16).save_pretrained(out)
    for part in (autoencoder, text_encoder, unet):
        part.float()


def _each(clock: float, steps: int) -> str:
    return f"{(time.monotonic() - clock) / steps:.2f} s a step"


if __name__ == "__main__":
    main()
