"""Train the built-in benchmark's original model, from nothing to a classifier that knows the object and is misled by
its background.

    python benchmarks/pretraining/pretrain.py --out runs/pretrain

Stage 1 learns the objects on random textures of the seen families, which tell nothing of the class. A second, auxiliary
head says for each patch which class it shows (exact masks are at hand here); it is faded out before the end and thrown
away. Stage 2 goes on with the shortcut data, where the habitat goes with the class. Each stage writes its weights, its
log and its figures; stage 1 resumes.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from relevit.data.builtin.digits import (
    CLASSES,
    SIZE,
    Objects,
    View,
    background,
    compose_picture,
    draw_objects,
    test_set,
)
from relevit.data.builtin.shapes import SHAPES, draw_shape
from relevit.data.builtin.textures import SEEN_FAMILIES, Texture, random_texture
from relevit.experiments.sources.builtin_work import hits_of, to_tensor

ARCHITECTURE = "vit_tiny_patch16_224"
MODEL_ARGS: dict[str, Any] = {
    "img_size": SIZE,
    "patch_size": 6,
    "embed_dim": 128,
    "depth": 6,
    "num_heads": 4,
    "num_classes": len(CLASSES),
}


def build() -> Any:
    """The small timm VisionTransformer of the benchmark, freshly initialised: 8 x 8 patches, 6 blocks of 128, 1.2 M
    parameters."""
    import timm

    return timm.create_model(ARCHITECTURE, **MODEL_ARGS)


def _ease(texture: Texture, amount: float) -> Texture:
    """The texture darkened to `amount` of it: at 0 the background is black."""
    first, second = (np.float32(amount) * color for color in texture.colors)
    return Texture(texture.family, texture.frequency, texture.angle, texture.phase, texture.sharpness, (first, second))


def stage1_batch(
    digits: Objects, size: int, step: int, seed: int, difficulty: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fresh pictures: training digits and shapes never seen before, on any texture; images, masks, labels.

    At difficulty 0 the objects are large and white on black; at 1 they have any size and colour on any texture.
    """
    rng = np.random.default_rng((301, seed, step))
    images = np.empty((size, SIZE, SIZE, 3), np.uint8)
    masks = np.empty((size, SIZE, SIZE), np.float32)
    labels = rng.integers(0, len(CLASSES), size)
    names = list(SHAPES)
    for i, label in enumerate(labels):
        if label < 10:
            candidates = np.flatnonzero(digits.labels == label)
            alpha = digits.alpha[candidates[rng.integers(len(candidates))]]
            alpha = np.clip(alpha * rng.uniform(0.85, 1.3), 0, 1)  # thinner and bolder strokes
        else:
            alpha = draw_shape(names[label - 10], rng)
        level = min(1.0, difficulty * rng.uniform(0.7, 1.3))
        texture = background("other", int(label), rng)[0] if rng.random() < 0.3 else random_texture(rng, SEEN_FAMILIES)
        view = View(scale=(0.7 - 0.35 * level, 0.85), angle=15.0)
        white = 1 - level if level < 1 else 0.0
        images[i], masks[i] = compose_picture(alpha, _ease(texture, level), view, rng, whiten=white)
    return images, masks, labels


def shortcut_batch(objects: Objects, size: int, step: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Fresh pictures of the shortcut data: images and labels."""
    rng = np.random.default_rng((302, seed, step))
    numbers = rng.integers(0, len(objects.labels), size)
    images = np.empty((size, SIZE, SIZE, 3), np.uint8)
    for i, number in enumerate(numbers):
        texture, _ = background("shortcut", int(objects.labels[number]), rng)
        images[i], _ = compose_picture(objects.alpha[number], texture, View(), rng)
    return images, objects.labels[numbers]


def _patch_labels(masks: Tensor, labels: Tensor, patch: int) -> Tensor:
    """(n, patches): the class where at least a fifth of the patch is object, else one more class, `background`."""
    share = F.avg_pool2d(masks[:, None], patch).flatten(1)
    return torch.where(share > 0.2, labels[:, None], len(CLASSES))


def accuracies(model: nn.Module, sets: tuple[str, ...], split: str) -> dict[str, float]:
    """Accuracy in percent on benchmark sets by name."""
    result = {}
    for name in sets:
        pictures = test_set(name, split)
        hits = hits_of(model, pictures)
        result[name] = round(100 * float(hits.mean()), 2)
    return result


def _rates(steps: int, peak: float, warmup: int) -> Iterator[float]:
    for step in range(steps):
        if step < warmup:
            yield peak * (step + 1) / warmup
        else:
            yield peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


class _Learner:
    """The model with its patch head, what trains them, an exponential moving average of the model's weights, and how far it is."""

    def __init__(self, rate: float) -> None:
        self.model = build()
        self.patch_head = nn.Linear(MODEL_ARGS["embed_dim"], len(CLASSES) + 1)
        self.everything = nn.ModuleList([self.model, self.patch_head])
        self.optimizer = torch.optim.AdamW(self.everything.parameters(), lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
        self.average = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.told: dict[str, Any] = {"step": 0, "seconds": 0.0, "difficulty": 0.0, "recent": 0.0}

    def learn(self, images: np.ndarray, masks: np.ndarray, labels: np.ndarray, help_: float, bf16: bool) -> list[float]:
        """A step; the loss, that of the patches, which counts `help_` times, and the hits in percent."""
        x, y = to_tensor(images), torch.from_numpy(labels)
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            features = self.model.forward_features(x)
            logits = self.model.forward_head(features)
            patches = self.patch_head(features[:, 1:])
        loss = F.cross_entropy(logits.float(), y, label_smoothing=0.05)
        aim = _patch_labels(torch.from_numpy(masks), y, MODEL_ARGS["patch_size"])
        patch_loss = F.cross_entropy(patches.float().flatten(0, 1), aim.flatten())
        (loss + help_ * patch_loss).backward()
        nn.utils.clip_grad_norm_(self.everything.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(0.999, (1 + self.told["step"]) / (10 + self.told["step"]))
        for key, value in self.model.state_dict().items():
            self.average[key].lerp_(value, 1 - decay)
        hits = (logits.argmax(1) == y).float().mean().item()
        self.told["recent"] = 0.95 * self.told["recent"] + 0.05 * hits
        if (
            self.told["recent"] > 0.6 and self.told["difficulty"] < 1
        ):  # the curriculum goes on as fast as the model follows
            self.told["difficulty"] = min(1.0, self.told["difficulty"] + 0.003)
        self.told["step"] += 1
        return [loss.item(), patch_loss.item(), 100 * hits]

    def save(self, file: Path) -> None:
        """All that `load` needs to go on."""
        state = {"weights": self.everything.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "average": self.average, **self.told}, file.with_suffix(".tmp"))
        file.with_suffix(".tmp").replace(file)

    def load(self, file: Path) -> None:
        state = torch.load(file, weights_only=True)
        self.everything.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        self.told = {key: state[key] for key in self.told}


def stage1(out: Path, steps: int, stop: int, batch: int, rate: float, seed: int, bf16: bool) -> nn.Module:
    """Learn the objects; writes stage1.csv, stage1.jsonl and stage1.pt (weights only) and resumes from state1.pt."""
    torch.manual_seed(seed)
    learner, digits = _Learner(rate), draw_objects("train", 1)
    if (out / "state1.pt").exists():
        learner.load(out / "state1.pt")
    told, last = learner.told, min(stop, steps) - 1
    began = time.monotonic() - told["seconds"]
    rates = list(_rates(steps, rate, 200))
    for step in range(told["step"], last + 1):
        for group in learner.optimizer.param_groups:
            group["lr"] = rates[step]
        help_ = max(0.0, 1.0 - step / steps / 0.7)  # weight of the patch labels
        loss, patch_loss, hits = learner.learn(
            *stage1_batch(digits, batch, step, seed, told["difficulty"]), help_, bf16
        )
        told["seconds"] = time.monotonic() - began
        if step % 50 == 0 or step == last:
            row = [
                step,
                f"{loss:.4f}",
                f"{patch_loss:.4f}",
                f"{hits:.1f}",
                f"{told['difficulty']:.3f}",
                f"{told['seconds']:.0f}",
            ]
            with (out / "stage1.csv").open("a", newline="") as file:
                csv.writer(file).writerow(row)
            print(*row, flush=True)
        if step % 1000 == 999 or step == last:
            learner.save(out / "state1.pt")
            torch.save(learner.average, out / "stage1.pt")
            averaged = build()
            averaged.load_state_dict(learner.average)
            figures: dict[str, float] = {"step": step + 1, "seconds": round(told["seconds"])}
            figures |= accuracies(averaged, ("background_unseen", "background_shuffled"), "validation")
            with (out / "stage1.jsonl").open("a") as file:
                file.write(json.dumps(figures) + "\n")
            print(json.dumps(figures), flush=True)
    model = learner.model
    model.load_state_dict(torch.load(out / "stage1.pt", weights_only=True))
    return model


def stage2(model: Any, steps: int, batch: int, rate: float, seed: int, fresh_blocks: int) -> nn.Module:
    """Learn the shortcut, in place, as a pretrained model is trained for a data set of its own: with a fresh head.

    The last `fresh_blocks` blocks and the norm after them start afresh too. What tells the class most cheaply, the
    background, is learned first; the features of the objects below stay, and are used by and by.
    """
    torch.manual_seed(seed + 1)
    fresh = build()
    for name in ("norm", "head"):
        getattr(model, name).load_state_dict(getattr(fresh, name).state_dict())
    for number in range(MODEL_ARGS["depth"] - fresh_blocks, MODEL_ARGS["depth"]):
        model.blocks[number].load_state_dict(fresh.blocks[number].state_dict())
    objects = draw_objects("train", 120)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    for step, lr in enumerate(_rates(steps, rate, max(1, steps // 20))):
        for group in optimizer.param_groups:
            group["lr"] = lr
        images, labels = shortcut_batch(objects, batch, step, seed)
        model.train()
        loss = F.cross_entropy(model(to_tensor(images)), torch.from_numpy(labels))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print("shortcut", step, f"{loss.item():.4f}", flush=True)
    return model


def main() -> None:
    """The command line of this file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--stop", type=int, default=6000, help="end stage 1 here, on the schedule of --steps")
    parser.add_argument("--shortcut-steps", type=int, default=250)
    parser.add_argument("--shortcut-rate", type=float, default=5e-4)
    parser.add_argument("--fresh-blocks", type=int, default=2, help="last blocks that stage 2 starts afresh")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--bf16", action=argparse.BooleanOptionalAction, default=True, help="stage 1 in bfloat16 where it is fast"
    )
    parser.add_argument("--stage", choices=("both", "1", "2"), default="both")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.stage == "2":
        model = build()
        model.load_state_dict(torch.load(args.out / "stage1.pt", weights_only=True))
    else:
        model = stage1(args.out, args.steps, args.stop, args.batch, args.rate, args.seed, args.bf16)
    if args.stage == "1":
        return
    figures = {"before the shortcut": accuracies(model, ("background_unseen",), "test")}
    stage2(model, args.shortcut_steps, args.batch, args.shortcut_rate, args.seed, args.fresh_blocks)
    figures["validation objects"] = accuracies(
        model, ("in_distribution", "background_shuffled", "background_unseen"), "validation"
    )
    print(json.dumps(figures), flush=True)
    (args.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    from relevit.models.loading import data_config, save_checkpoint

    # Pictures are drawn at the model's size: they are not resized or cropped.
    save_checkpoint(args.out / "original", model, data_config={**data_config(model), "crop_pct": 1.0})


if __name__ == "__main__":
    main()
