"""Images per second of `relevit.evaluate` against a bare loop of timm's: its loader and the forward pass, and nothing else.

    python benchmarks/evaluate.py [--model vit_small_patch16_224] [--images 256] [--workers 2] [--batch-size 32] [--repeats 5]

Both read the same JPEG files (500 x 375, made on the fly, of the quality of ImageNet's), with the same batch size and workers,
in this process by turns, so that a busy machine slows both alike. Beside the wall clock the processors' time of this process and
its workers is given: other programs disturb it less. relevit also finds the hits, writes a row an image and computes all figures;
the time of that is within its figure. Then the peak memory of a run over few and over four times as many images, each in a fresh
process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader, resolve_model_data_config
from torch import nn

from relevit.data.benchmarks import class_folders
from relevit.evaluation import evaluate
from relevit.models.loading import data_config
from relevit.models.view import evaluation_view

CLASSES = 8


def make_images(root: Path, count: int) -> None:
    """Pictures with structure at all scales, which compress as photographs do (about 100 kB each)."""
    rng = np.random.default_rng(0)
    for number in range(count):
        picture = np.zeros((375, 500, 3), np.float32)
        for cells in (3, 9, 27, 81, 243):
            noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8)).resize(
                (500, 375), Image.Resampling.BICUBIC
            )
            picture += np.asarray(noise, np.float32) / cells**0.4
        picture = 255 * (picture - picture.min()) / np.ptp(picture)
        path = root / str(number % CLASSES) / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.astype(np.uint8)).save(path, quality=95)


def bare(net: nn.Module, root: Path, batch_size: int, workers: int) -> None:
    """timm's loader and the forward pass."""
    config = resolve_model_data_config(net)
    loader = create_loader(
        create_dataset("", root=str(root)),
        input_size=config["input_size"],
        batch_size=batch_size,
        is_training=False,
        use_prefetcher=False,
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        crop_pct=config["crop_pct"],
        num_workers=workers,
        pin_memory=False,
        persistent_workers=False,
    )
    with torch.inference_mode():
        for images, _ in loader:
            net(images)


def ours(net: nn.Module, root: Path, batch_size: int, workers: int) -> None:
    with tempfile.TemporaryDirectory() as out:
        report = evaluate(
            (net, evaluation_view(data_config(net))), {"photos": class_folders(root)}, out=Path(out) / "out",
            batch_size=batch_size, workers=workers,
        )  # fmt: skip
        assert len(report.accuracy()) == sum(1 for _ in root.rglob("*.jpg"))


def timed(run: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the wall clock, and of the processors, this process's and its finished workers'."""

    def processors() -> float:
        usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    wall, cpu = time.perf_counter(), processors()
    run()
    return time.perf_counter() - wall, processors() - cpu


def peak(images: int, model: str) -> float:
    """Peak memory in MiB of a fresh process (on Linux) that evaluates a tiny model on so many images."""
    call = [sys.executable, __file__, "--model", model, "--images", str(images), "--only-memory"]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1])["mib"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--memory", type=int, default=500, help="images of the smaller of the two runs; 0 leaves them out"
    )
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.only_memory:
        from relevit.evaluation.shards import shard_size

        net = timm.create_model(
            "vit_tiny_patch16_224", img_size=32, embed_dim=12, depth=1, num_heads=1, num_classes=CLASSES
        )
        with tempfile.TemporaryDirectory() as folder:
            for number in range(options.images):
                path = Path(folder) / "data" / str(number % CLASSES) / f"{number:06d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (number % 256,) * 3).save(path)
            evaluate((net, evaluation_view(data_config(net))), Path(folder) / "data", out=Path(folder) / "out")
        # Of this program alone: ru_maxrss may be that of the one that started it.
        status = Path("/proc/self/status").read_text().splitlines()
        mib = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024
        print(json.dumps({"mib": mib, "shard": shard_size(options.images)}))
        return

    net = timm.create_model(options.model, num_classes=CLASSES).eval()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{options.model}, {options.images} images, batches of {options.batch_size}, {options.workers} workers")
    print(f"{cores} cores, torch {torch.__version__}, timm {timm.__version__}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_images(root, options.images)
        size = sum(path.stat().st_size for path in root.rglob("*.jpg")) / options.images / 1024
        print(f"JPEG files of 500 x 375 pixels, {size:.0f} kB each; load before: {os.getloadavg()[0]:.1f}")
        times: dict[str, list[tuple[float, float]]] = {"timm": [], "relevit": []}
        runs = {"timm": bare, "relevit": ours}
        for repeat in range(options.repeats + 1):
            for name in list(runs) if repeat % 2 else list(runs)[::-1]:
                seconds = timed(lambda name=name: runs[name](net, root, options.batch_size, options.workers))
                if repeat:  # the first warms up
                    times[name].append(seconds)
    for place, kind in enumerate(("wall clock", "processors' time")):
        rates = {name: [options.images / each[place] for each in found] for name, found in times.items()}
        ratios = [mine / theirs for mine, theirs in zip(rates["relevit"], rates["timm"], strict=True)]
        told = ", ".join(f"{name} {statistics.median(each):.2f} images/s" for name, each in rates.items())
        print(
            f"{kind}: {told}; ratio, median of pairs {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        )
    if options.memory:
        few, many = options.memory, 4 * options.memory
        print(
            f"peak memory: {peak(few, options.model):.0f} MiB with {few} images, {peak(many, options.model):.0f} MiB with {many}"
        )
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
