"""Speed of automatic masks by stage: `python benchmarks/masks.py` prints the Markdown for RESULTS.md.

Backbone, graph cut and refinement in images per second at 320 x 480 pixels (height x width, 600 patches), against the
published way (published_masks.py), in one process and in turns. The backbones have random weights, whose features would
give a graph of noise: the cut gets colour features of the same dimension instead (random Fourier features of the mean
colour of each patch), which makes a graph with clusters. --images takes real pictures in place of synthetic ones.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from scipy import ndimage

from published_masks import published_cut, published_refinement
from relevit.data.listing import list_images
from relevit.images import read_image
from relevit.masking.bilateral_solver import refine_mask
from relevit.masking.features import patch_features
from relevit.masking.tokencut import tokencut
from step import processor, seconds

MODELS = ["vit_small_patch16_224", "vit_base_patch16_224"]
HEIGHT, WIDTH, PATCH = 320, 480, 16
GRID = (HEIGHT // PATCH, WIDTH // PATCH)


def synthetic_picture(rng: np.random.Generator) -> np.ndarray:
    """An ellipse on a smooth background of two colours, both with texture: uint8 (height, width, 3)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]

    def texture(size: float, strength: float) -> np.ndarray:
        noise = ndimage.gaussian_filter(rng.normal(size=(HEIGHT, WIDTH, 3)), (size, size, 0))
        return strength * noise / noise.std()

    colours = rng.permutation(np.array([[190, 80, 60], [60, 120, 70], [90, 130, 190], [210, 190, 120]]))[:3]
    horizon = HEIGHT * rng.uniform(0.3, 0.7)
    picture = np.where((y > horizon)[..., None], colours[0], colours[1]) + texture(24, 18) + texture(3, 8)
    centre, radii = rng.uniform(0.35, 0.65, 2), rng.uniform(0.18, 0.3, 2)
    inside = ((y / HEIGHT - centre[0]) / radii[0]) ** 2 + ((x / WIDTH - centre[1]) / radii[1]) ** 2 < 1
    picture = np.where(inside[..., None], colours[2] + texture(12, 14) + texture(2, 10), picture)
    return np.clip(picture + rng.normal(size=picture.shape) * 3, 0, 255).astype(np.uint8)


def pictures(folder: Path | None, count: int) -> list[np.ndarray]:
    if folder is None:
        rng = np.random.default_rng(0)
        return [synthetic_picture(rng) for _ in range(count)]
    paths = list_images(folder)
    paths = paths[:: max(1, len(paths) // count)][:count]
    return [np.asarray(read_image(path).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)) for path in paths]


def colour_features(images: list[np.ndarray], dim: int) -> torch.Tensor:
    """(images, patches, dim): the cosine of two patches is about exp(-d^2 / 2), d their distance in colour over 40 levels."""
    rng = np.random.default_rng(0)
    stack = np.stack(images).reshape(len(images), GRID[0], PATCH, GRID[1], PATCH, 3)
    colours = stack.mean(axis=(2, 4)).reshape(len(images), -1, 3) / 40
    features = np.cos(colours @ rng.normal(size=(3, dim)) + rng.uniform(0, 2 * np.pi, dim))
    return torch.from_numpy(features + 0.1 * rng.normal(size=features.shape)).float()


def upsampled(mask: np.ndarray) -> np.ndarray:
    return np.repeat(np.repeat(mask, PATCH, axis=0), PATCH, axis=1)


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0


def build(name: str, images: list[np.ndarray], device: str) -> tuple[dict[str, Callable[[], object]], list[str]]:
    """What is measured, each on all images; and how far the masks of the two ways agree."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, dynamic_img_size=True).to(device).eval()
    tensors = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().to(device) / 255
    features = colour_features(images, model.num_features)
    on_device, one_by_one = features.to(device), features.double().numpy()
    coarse = [upsampled(mask) for mask in tokencut(on_device, GRID).masks.cpu().numpy()]
    calls: dict[str, Callable[[], object]] = {
        "backbone": lambda: patch_features(model, tensors),
        "cut": lambda: tokencut(on_device, GRID).masks.cpu(),
        "refinement": lambda: [refine_mask(image, mask).mask for image, mask in zip(images, coarse, strict=True)],
        "published cut": lambda: [published_cut(values, GRID, subset=False) for values in one_by_one],
        "published cut, two vectors": lambda: [published_cut(values, GRID, subset=True) for values in one_by_one],
        "published refinement": lambda: [published_refinement(i, m) for i, m in zip(images, coarse, strict=True)],
    }
    cuts = [
        overlap(upsampled(published_cut(v, GRID, subset=False)), m) for v, m in zip(one_by_one, coarse, strict=True)
    ]
    ours = [refine_mask(image, mask).mask for image, mask in zip(images, coarse, strict=True)]
    theirs = [published_refinement(image, mask) for image, mask in zip(images, coarse, strict=True)]
    # On more than half of the picture, the published rule returns the background.
    refined = [overlap(one, other) for one, other in zip(ours, theirs, strict=True) if one.mean() < 0.5]
    return calls, [
        f"{np.mean(values):.4f} (least {min(values):.4f}, {len(values)} pictures)" for values in (cuts, refined)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument(
        "--images", type=Path, help="a folder of pictures, resized to 320 x 480; default: synthetic ones"
    )
    parser.add_argument("--count", type=int, default=8, help="number of pictures, one batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    images = pictures(options.images, options.count)
    print(f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} CPU threads, {options.device}, float32; "
          f"torch {torch.__version__}, Python {platform.python_version()}; {len(images)} "
          f"{'synthetic' if options.images is None else 'real'} pictures of {HEIGHT} x {WIDTH}, colour features for the cut, "
          f"medians of {options.repeats} turns. Images per second.\n")  # fmt: skip
    print("| model | backbone | cut | refinement | published cut (all vectors / two) | published refinement "
          "| published / ours: cut | refinement | cut + refinement |\n|" + " --- |" * 9)  # fmt: skip
    notes = []
    for name in options.models:
        calls, agreement = build(name, images, options.device)
        notes.append(f"{name}: IoU with the published way's masks: coarse {agreement[0]}, refined {agreement[1]}.")
        times: dict[str, list[float]] = {key: [] for key in calls}
        for turn, (key, call) in itertools.product(range(options.repeats + 1), calls.items()):
            took = seconds(call, options.device)
            if turn > 0:  # the first warms up
                times[key].append(took)
        t = {key: statistics.median(values) for key, values in times.items()}
        rate = {key: f"{len(images) / value:.1f}" for key, value in t.items()}
        all_vectors, two = t["published cut"], t["published cut, two vectors"]
        ours, theirs = t["cut"] + t["refinement"], t["published refinement"]
        print(f"| {name} | {rate['backbone']} | {rate['cut']} | {rate['refinement']} "
              f"| {rate['published cut']} / {rate['published cut, two vectors']} | {rate['published refinement']} "
              f"| {all_vectors / t['cut']:.2f} / {two / t['cut']:.2f} | {theirs / t['refinement']:.2f} "
              f"| {(all_vectors + theirs) / ours:.2f} / {(two + theirs) / ours:.2f} |", flush=True)  # fmt: skip
    print("\n" + "\n\n".join(notes))


if __name__ == "__main__":
    main()
