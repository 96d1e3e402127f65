"""How a step grows with the tokens and with depth: `python benchmarks/long_inputs.py` prints the Markdown for RESULTS.md.

A plain cross-entropy step with torch's own attention, ours with each engine, and the published procedure (published.py), on a
ViT-S with random weights. Each in a process of its own: seconds of the processors (the median over steps after the first, which other
programs disturb less than the wall clock) and peak memory above the model. The exponents are slopes of the logarithms over the
last two numbers of tokens.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import timm
import torch
import torch.nn.functional as F

import relevit
from published import published_loss
from step import processor, resident_peak

SIDES = (14, 24, 37, 48, 64)
WHAT = ("plain", "map", "tiled", "published")
Figures = dict[str, float]


def step(what: str, side: int, depth: int, batch: int, repeats: int) -> Figures:
    """Seconds of the processors and MiB above the model of a training step."""
    torch.manual_seed(0)
    size = 16 * side
    model: Any = timm.create_model("vit_small_patch16_224", img_size=size, depth=depth).train()
    images, labels = torch.randn(batch, 3, size, size), torch.randint(0, 1000, (batch,))
    masks = torch.zeros(batch, size, size)
    masks[:, size // 4 : size // 2, size // 4 : size // 2] = 1.0

    def loss() -> torch.Tensor:
        if what == "plain":
            return F.cross_entropy(model(images), labels)
        if what == "published":
            return published_loss(model, model, images, masks, labels)
        logits, maps = relevit.forward_with_relevance(model, images, labels, attention=what)
        return relevit.total_loss(relevit.relevance_loss(maps, masks), relevit.confidence_loss(logits))

    before, times = resident_peak(), []
    for _ in range(repeats + 1):
        began = time.process_time()
        loss().backward()
        times.append(time.process_time() - began)
        model.zero_grad()
    return {"seconds": statistics.median(times[1:] or times), "MiB": resident_peak() - before}


def in_own_process(what: str, side: int, depth: int, options: argparse.Namespace) -> Figures:
    """Figures, not numbers where the memory does not suffice."""
    given = ["--one", what, str(side), str(depth), "--batch", str(options.batch), "--repeats", str(options.repeats)]
    command = [sys.executable, os.path.abspath(__file__), *given, "--threads", str(options.threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {"seconds": math.nan, "MiB": math.nan}


def slope(values: list[float], at: list[int]) -> float:
    return math.log(values[-1] / values[-2]) / math.log(at[-1] / at[-2]) if len(values) > 1 else math.nan


def table(sizes: list[tuple[int, int]], label: str, at: list[int], options: argparse.Namespace) -> None:
    """A row for each (side, depth), and the exponents."""
    print(
        f"| {label} | " + " | ".join(f"{w} s | {w} MiB" for w in options.what) + " | time to plain | memory to plain |"
    )
    print("|" + " --- |" * (2 * len(options.what) + 3))
    columns: dict[str, list[Figures]] = {what: [] for what in options.what}
    for (side, depth), value in zip(sizes, at, strict=True):
        figures = {}
        for what in options.what:
            fits = what in ("plain", "tiled") or side <= options.largest_map
            figures[what] = (
                in_own_process(what, side, depth, options) if fits else {"seconds": math.nan, "MiB": math.nan}
            )
            columns[what].append(figures[what])
        cells = [f"{f['seconds']:.2f} | {f['MiB']:.0f}" for f in figures.values()]
        ratios = [" / ".join(f"{f[k] / figures['plain'][k]:.2f}" for f in figures.values()) for k in ("seconds", "MiB")]
        print(f"| {value} | " + " | ".join(cells + ratios) + " |", flush=True)
    slopes = [f"{slope([f[k] for f in c], at):.2f}" for c in columns.values() for k in ("seconds", "MiB")]
    print("| exponent | " + " | ".join(slopes) + " | | |\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", nargs="+", type=int, default=SIDES, help="of the grid of patches")
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument(
        "--depths", nargs="*", type=int, default=[3, 6, 12], help="for the growth with depth, at 577 tokens"
    )
    parser.add_argument("--what", nargs="+", default=WHAT)
    parser.add_argument("--largest-map", type=int, default=37, help="side up to which what keeps maps is run")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one:
        what, side, depth = options.one
        print(json.dumps(step(what, int(side), int(depth), options.batch, options.repeats)))
        return
    print(
        f"{processor()}, {options.threads} threads, torch {torch.__version__}, ViT-S of {options.depth} blocks, batch {options.batch}\n"
    )
    sides = list(options.sides)
    table([(side, options.depth) for side in sides], "tokens", [side * side + 1 for side in sides], options)
    if options.depths:
        table([(24, depth) for depth in options.depths], "blocks", list(options.depths), options)


if __name__ == "__main__":
    main()
