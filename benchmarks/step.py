"""Time and memory of a training step, and of a map alone: `python benchmarks/step.py` prints the Markdown for RESULTS.md.

In one process, in turns: (a) a cross-entropy training step of the model as timm builds it, (b) our full training step,
(c) the published procedure (published.py); a forward pass, and the map alone. Peak memory each in a process of its own.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import timm
import torch
import torch.nn.functional as F

import relevit
from published import published_loss

MODELS = ["vit_small_patch16_224", "vit_base_patch16_224"]
BATCH, SIZE = 8, 224


def build(name: str, device: str) -> dict[str, Callable[[], None]]:
    """The five things that are measured, on one model."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, img_size=SIZE).to(device).train()
    frozen: list[torch.nn.Module] = []
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-6, weight_decay=1e-4)
    images = torch.randn(BATCH, 3, SIZE, SIZE, device=device)
    labels = torch.randint(0, 1000, (BATCH,), device=device)
    masks = torch.zeros(BATCH, SIZE, SIZE, device=device)
    masks[:, 50:170, 60:160] = 1.0
    precision = (lambda: torch.autocast("cuda", torch.bfloat16)) if device == "cuda" else nullcontext

    def step(loss: Callable[[], torch.Tensor]) -> None:
        with precision():
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    def ours() -> torch.Tensor:
        logits, maps = relevit.forward_with_relevance(model, images, labels)
        return relevit.total_loss(relevit.relevance_loss(maps, masks), relevit.confidence_loss(logits))

    def published() -> torch.Tensor:
        if not frozen:
            frozen.append(copy.deepcopy(model).requires_grad_(False))
        return published_loss(model, frozen[0], images, masks, labels)

    def forward() -> None:
        with torch.inference_mode(), precision():
            model(images)

    def maps() -> None:
        with torch.inference_mode(), precision():
            relevit.relevance(model, images)

    return {
        "a": lambda: step(lambda: F.cross_entropy(model(images), labels)),
        "b": lambda: step(ours),
        "c": lambda: step(published),
        "forward": forward,
        "map": maps,
    }


def seconds(call: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure_time(name: str, device: str, repeats: int, only: str) -> dict[str, float]:
    """Median seconds of each; (c), which takes longest, is repeated half as often."""
    calls = {key: call for key, call in build(name, device).items() if key in only.split(",")}
    for call in calls.values():
        seconds(call, device)
    times: dict[str, list[float]] = {key: [] for key in calls}
    for turn in range(repeats):
        for key, call in calls.items():
            if key != "c" or turn % 2 == 0:
                times[key].append(seconds(call, device))
    return {key: statistics.median(values) for key, values in times.items()}


def resident_peak() -> float:
    """Peak resident memory of this process in MiB (ru_maxrss would count the parent's, which survives exec)."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def measure_memory(name: str, device: str, key: str) -> float:
    """MiB at the peak over three steps, less what Python and the libraries take before the model is built."""
    before = resident_peak()
    call = build(name, device)[key]
    for _ in range(3):
        call()
    return torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else resident_peak() - before


def memory_in_own_process(name: str, device: str, key: str) -> float:
    command = [sys.executable, os.path.abspath(__file__), "--models", name, "--device", device, "--memory-of", key]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def processor() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--only", default="a,b,c,forward,map", help="which of them to time")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--memory-of", choices=["a", "b", "c"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(measure_memory(options.models[0], options.device, options.memory_of))
        return
    precision = "bf16 autocast" if options.device == "cuda" else "float32"
    print(f"{processor()}, {torch.get_num_threads()} CPU threads, {options.device}, {precision}; torch {torch.__version__}, "
          f"timm {timm.__version__}, Python {platform.python_version()}; batch {BATCH}, {SIZE} pixels, "
          f"medians of {options.repeats} turns.\n")  # fmt: skip
    print("| model | (a) CE step | (b) our step | (c) published | (b)/(a) | (c)/(b) | forward | map alone | map/forward "
          "| peak (a) | peak (b) | peak (c) | memory (b)/(a) |\n|" + " --- |" * 13)  # fmt: skip
    for name in options.models:
        t = measure_time(name, options.device, options.repeats, options.only)
        t = {key: t.get(key, float("nan")) for key in ("a", "b", "c", "forward", "map")}
        nan = float("nan")
        peak = {key: nan if options.no_memory else memory_in_own_process(name, options.device, key) for key in "abc"}
        print(f"| {name} | {t['a']:.3f} s | {t['b']:.3f} s | {t['c']:.3f} s | {t['b'] / t['a']:.3f} | {t['c'] / t['b']:.2f} "
              f"| {t['forward']:.3f} s | {t['map']:.3f} s | {t['map'] / t['forward']:.2f} | {peak['a']:.0f} MiB "
              f"| {peak['b']:.0f} MiB | {peak['c']:.0f} MiB | {peak['b'] / peak['a']:.3f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
