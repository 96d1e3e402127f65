"""Everything that wants a CUDA device, in one run: `python benchmarks/gpu.py --out DIR` prints Markdown for RESULTS.md and keeps gpu.json.

Correctness first: each engine of attention, and a whole step, against the CPU in float64. Then the blocks of the kernels, the ratio of
our training step to cross-entropy with flash attention, images per second, and a profile of the step. Weights are random. What
has been measured is written at once, so a run that is cut off loses nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F

import relevit
from relevit.explainers.engines import cuda, kernels, map, tiled
from relevit.explainers.engines.attended import Attended, FromRow

ENGINES = {"map": map, "tiled": tiled, "triton": cuda}
Row = dict[str, Any]
CANDIDATES = {
    "forward": [(128, 64, 4, 3), (128, 128, 8, 3), (64, 64, 4, 3)],
    "logit": [(64, 128, 8, 2), (64, 64, 4, 2), (128, 128, 8, 2), (128, 64, 4, 2)],
    "loss": [(64, 128, 8, 2), (64, 64, 4, 2), (64, 64, 8, 2), (128, 64, 8, 2), (32, 128, 4, 2)],
    "carry_back": [(128, 64, 8, 2), (64, 64, 4, 3), (128, 64, 4, 3)],
}
STEPS = [
    # model, pixels, batch, precision, with gradient checkpointing
    ("vit_base_patch16_224", 224, 64, "bf16", False),
    ("vit_base_patch14_dinov2", 518, 16, "bf16", False),
    ("vit_base_patch16_224", 224, 64, "float32", False),
    ("vit_large_patch14_dinov2", 518, 16, "bf16", True),
    ("vit_large_patch14_dinov2", 518, 16, "bf16", False),
    ("vit_base_patch14_dinov2", 896, 8, "bf16", False),
]


def random_attention(batch: int, heads: int, tokens: int, dim: int, dtype: torch.dtype, device: str) -> dict[str, Any]:
    """Inputs of one attention in timm's layout, and of its backward passes."""
    draw = torch.Generator().manual_seed(tokens)
    qkv = torch.randn(batch, tokens, 3, heads, dim, generator=draw).permute(2, 0, 3, 1, 4).to(device, dtype)
    given = torch.randn(2, batch, tokens, heads, dim, generator=draw).transpose(2, 3).to(device, dtype)
    row = torch.rand(batch, tokens, generator=draw).to(device)
    return {
        "qkv": qkv,
        "to_output": given[0],
        "d": given[1],
        "r": row,
        "c": torch.randn(batch, tokens, generator=draw).to(device),
    }


def passes(engine: Any, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    """All that an engine computes for one attention."""
    query, key, value = inputs["qkv"]
    scale, rows = query.shape[-1] ** -0.5, slice(0, query.shape[2])
    output, kept = engine.forward(query, key, value, None, scale)
    attended = Attended(query, key, value, None, scale, output, kept)
    logit = engine.backward(attended, inputs["d"], inputs["r"], rows, None, False)
    back, per_head = engine.carry_back(attended, inputs["d"], inputs["c"], rows, logit.carried.mean)
    loss = engine.backward(
        attended, inputs["to_output"], None, None, FromRow(inputs["r"], inputs["c"], inputs["d"], rows, per_head), False
    )
    return {"o": output, "r'": logit.carried.row, "dq": logit.query, "dk": logit.key, "dv": logit.value, "dr": back,
            "loss dq": loss.query, "loss dk": loss.key, "loss dv": loss.value}  # fmt: skip


def check_engines() -> Iterator[Row]:
    """Relative errors, norm of the difference by norm, against `tiled` on the CPU in float64 on the same (rounded) inputs."""
    for batch, heads, tokens, dim in (
        (2, 3, 197, 64),
        (1, 2, 1370, 64),
        (2, 2, 261, 80),
        (1, 2, 257, 128),
        (1, 2, 577, 32),
    ):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            inputs = random_attention(batch, heads, tokens, dim, dtype, "cuda")
            wanted = passes(tiled, {name: x.double().cpu() for name, x in inputs.items()})
            for name, engine in ENGINES.items():
                row: Row = {"tokens": tokens, "dim": dim, "dtype": str(dtype)[6:], "engine": name}
                try:
                    found = passes(engine, inputs)
                    row |= {k: float(f"{relative(found[k], x):.2e}") for k, x in wanted.items()}
                except Exception as error:
                    row["failed"] = f"{type(error).__name__}: {str(error)[:300]}"
                yield row


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    wanted = wanted.double()
    return float((found.double().cpu() - wanted.cpu()).norm() / wanted.norm())


def check_steps() -> Iterator[Row]:
    """A whole step of a ViT-S with each engine and precision, against the CPU in float64: logits, maps, all gradients as one vector."""
    torch.manual_seed(0)
    model = timm.create_model("vit_small_patch16_224", num_classes=10, depth=4)
    images, labels = torch.randn(3, 3, 224, 224), torch.tensor([1, 2, 3])
    wanted = step_values(copy.deepcopy(model).double(), images.double(), labels, "map", nullcontext())
    for name in ENGINES:
        for precision in ("float32", "bf16", "float16"):
            context = nullcontext() if precision == "float32" else torch.autocast("cuda", dtype_of(precision))
            found = step_values(copy.deepcopy(model).cuda(), images.cuda(), labels.cuda(), name, context)
            yield {"engine": name, "precision": precision} | {
                k: float(f"{relative(f, w):.2e}")
                for k, f, w in zip(("logits", "maps", "gradients"), found, wanted, strict=True)
            }


def step_values(
    model: Any, images: torch.Tensor, labels: torch.Tensor, engine: Any, context: Any
) -> list[torch.Tensor]:
    masks = torch.zeros_like(images[:, 0])
    masks[:, 50:170, 60:160] = 1.0
    with context:
        logits, maps = relevit.forward_with_relevance(model, images, labels, attention=engine)
        loss = relevit.total_loss(relevit.relevance_loss(maps, masks), relevit.confidence_loss(logits))
    loss.backward()
    return [logits.detach(), maps.detach(), torch.cat([p.grad.flatten().double() for p in model.parameters()])]


def dtype_of(precision: str) -> torch.dtype:
    return {"bf16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[precision]


def milliseconds(call: Callable[[], Any], repeats: int = 10) -> float:
    """Median, by events of the device."""
    call()
    call()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in "ab")
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def tune_kernels(only: list[str]) -> Iterator[Row]:
    """Milliseconds of each kernel's candidates, and of torch's flash attention."""
    sizes = {"518": (16, 12, 1370, 64), "224": (64, 12, 197, 64)}
    made = {name: random_attention(*size, torch.bfloat16, "cuda") for name, size in sizes.items()}
    for name, inputs in made.items():
        for kernel, call in torch_calls(inputs).items():
            yield {"kernel": kernel, "size": name, "ms": milliseconds(call)}
    for kernel in only:
        for blocks in CANDIDATES[kernel]:
            before, kernels._BLOCKS[kernel] = kernels._BLOCKS[kernel], blocks
            for name, inputs in made.items():
                row: Row = {"kernel": kernel, "size": name, "blocks": blocks}
                try:
                    yield row | {"ms": milliseconds(kernel_call(kernel, inputs))}
                except Exception as error:
                    yield row | {"failed": f"{type(error).__name__}: {str(error)[:200]}"}
            kernels._BLOCKS[kernel] = before
    for programs in (1, 250, 500, 1000):
        before_programs, cuda._PROGRAMS = cuda._PROGRAMS, programs
        for name, inputs in made.items():
            yield {
                "kernel": "loss",
                "size": name,
                "programs": programs,
                "ms": milliseconds(kernel_call("loss", inputs)),
            }
        cuda._PROGRAMS = before_programs


def torch_calls(inputs: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    query, key, value = (x.detach().requires_grad_() for x in inputs["qkv"])
    output, leaves, given = F.scaled_dot_product_attention(query, key, value), (query, key, value), inputs["to_output"]
    return {
        "torch forward": lambda: F.scaled_dot_product_attention(query, key, value),
        "torch backward": lambda: torch.autograd.grad(output, leaves, given, retain_graph=True),
    }


def kernel_call(kernel: str, inputs: dict[str, Any]) -> Callable[[], Any]:
    query, key, value = inputs["qkv"]
    scale, rows = query.shape[-1] ** -0.5, slice(0, query.shape[2])
    output, kept = cuda.forward(query, key, value, None, scale)
    attended = Attended(query, key, value, None, scale, output, kept)
    per_head = kept * 0
    from_row = FromRow(inputs["r"], inputs["c"], inputs["d"], rows, per_head)
    return {
        "forward": lambda: cuda.forward(query, key, value, None, scale),
        "logit": lambda: cuda.backward(attended, inputs["d"], inputs["r"], rows, None, False),
        "loss": lambda: cuda.backward(attended, inputs["to_output"], None, None, from_row, False),
        "carry_back": lambda: cuda.carry_back(attended, inputs["d"], inputs["c"], rows, None),
    }[kernel]


def build(name: str, size: int, batch: int, precision: str, checkpointing: bool) -> dict[str, Callable[[], Any]]:
    """The steps that are compared, and a map alone."""
    torch.manual_seed(0)
    model: Any = timm.create_model(name, pretrained=False, img_size=size, num_classes=1000).cuda().train()
    model.set_grad_checkpointing(checkpointing)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-6, weight_decay=1e-4)
    images, labels = torch.randn(batch, 3, size, size, device="cuda"), torch.randint(0, 1000, (batch,), device="cuda")
    masks = torch.zeros(batch, size, size, device="cuda")
    masks[:, size // 4 : size // 2, size // 4 : size // 2] = 1.0

    def precise() -> Any:
        return nullcontext() if precision == "float32" else torch.autocast("cuda", dtype_of(precision))

    def finish(value: torch.Tensor) -> None:
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    def plain() -> None:
        with precise():
            value = F.cross_entropy(model(images), labels)
        finish(value)

    def ours(engine: Any) -> Callable[[], None]:
        def step() -> None:
            with precise():
                logits, maps = relevit.forward_with_relevance(model, images, labels, attention=engine)
                value = relevit.total_loss(relevit.relevance_loss(maps, masks), relevit.confidence_loss(logits))
            finish(value)

        return step

    def forward() -> None:
        with torch.inference_mode(), precise():
            model(images)

    def explain() -> None:
        with torch.inference_mode(), precise():
            relevit.relevance(model, images)

    return {
        "plain": plain,
        **{name: ours(name) for name in ("triton", "tiled", "map")},
        "forward": forward,
        "explain": explain,
    }


def measure_steps(which: list[int], engines: list[str], turns: int) -> Iterator[Row]:
    """Milliseconds and peak memory of each step, and the ratios; medians over turns, in which all go one after the other."""
    for settings in (STEPS[i] for i in which):
        calls = {k: c for k, c in build(*settings).items() if k in ("plain", "forward", "explain", *engines)}
        row: Row = dict(zip(("model", "pixels", "batch", "precision", "checkpointing"), settings, strict=True))
        held = torch.cuda.memory_allocated()
        for name in list(calls):
            try:
                torch.cuda.reset_peak_memory_stats()
                calls[name]()
                calls[name]()
                row[f"{name} MiB"] = round((torch.cuda.max_memory_allocated() - held) / 2**20)
            except Exception as error:
                row[f"{name} failed"] = f"{type(error).__name__}: {str(error)[:200]}"
                del calls[name]
                torch.cuda.empty_cache()
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(turns):
            for name, call in calls.items():
                times[name].append(milliseconds_once(call))
        row |= {f"{name} ms": round(statistics.median(values), 2) for name, values in times.items()}
        for name in engines:
            if f"{name} ms" in row:
                row[f"{name}/plain"] = round(row[f"{name} ms"] / row["plain ms"], 3)
                row[f"{name}/plain memory"] = round(row[f"{name} MiB"] / row["plain MiB"], 3)
        row["explain images/s"] = round(settings[2] / row["explain ms"] * 1000, 1)
        del calls
        torch.cuda.empty_cache()
        yield row


def milliseconds_once(call: Callable[[], Any]) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def profile_step(which: list[int]) -> Iterator[Row]:
    """Milliseconds on the device by kernel, of a plain step and of ours; kernels under half a percent are left out."""
    for settings in (STEPS[i] for i in which):
        calls = build(*settings)
        for name in ("plain", "triton"):
            calls[name]()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
                calls[name]()
                torch.cuda.synchronize()
            events = [(e.key, e.self_device_time_total / 1000, e.count) for e in profiler.key_averages()]
            total = sum(ms for _, ms, _ in events)
            yield {
                "model": settings[0], "pixels": settings[1], "step": name, "total": round(total, 2),
                "kernels": [(k[:90], round(ms, 3), n) for k, ms, n in sorted(events, key=lambda e: -e[1]) if ms > total / 200],
            }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--parts", nargs="+", default=["engines", "steps", "tune", "ratios", "profile"])
    parser.add_argument("--which", nargs="+", type=int, default=list(range(len(STEPS))), help="of STEPS")
    parser.add_argument("--profiled", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--engines", nargs="+", default=["triton", "tiled", "map"])
    parser.add_argument("--kernels", nargs="+", default=list(CANDIDATES))
    parser.add_argument("--turns", type=int, default=10)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    device, began = torch.cuda.get_device_properties(0), time.perf_counter()
    results: dict[str, Any] = {"environment": {"device": device.name, "torch": torch.__version__, "timm": timm.__version__,
        "triton": __import__("triton").__version__, "python": platform.python_version()}}  # fmt: skip
    print(results["environment"], flush=True)
    parts: dict[str, Callable[[], Iterator[Row]]] = {
        "engines": check_engines,
        "steps": check_steps,
        "tune": lambda: tune_kernels(options.kernels),
        "ratios": lambda: measure_steps(options.which, options.engines, options.turns),
        "profile": lambda: profile_step(options.profiled),
    }
    for part in options.parts:
        results[part] = []
        try:
            for row in parts[part]():
                results[part].append(row)
                print(f"{time.perf_counter() - began:5.0f} s {part}", *(f"{k}={v}" for k, v in row.items()), flush=True)
                (options.out / "gpu.json").write_text(json.dumps(results, indent=1))
        except Exception as error:
            print(f"{part} ended: {type(error).__name__}: {error}", flush=True)


if __name__ == "__main__":
    main()
