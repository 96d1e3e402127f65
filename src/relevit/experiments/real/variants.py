"""A way to fine-tune one of the paper's models, and the jobs that it takes, each known by its key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relevit.experiments.filled import Data
from relevit.experiments.jobs import Job
from relevit.experiments.real.models import PaperModel
from relevit.experiments.real.places import IMAGENET_S, PUBLISHED_MASKS, TRAIN

_WORK = "relevit.experiments.real.work"
CLASSES, EPOCHS, BATCH = 500, 50, 8
DINO = "vit_base_patch16_224.dino"  # for automatic masks (protocol)
VALIDATION = 414  # samples, of the other classes
# Seconds of one core, rough: of a training step of 8 images and of one image's forward pass, by size of the model. Estimated from the
# CPU figures of benchmarks/RESULTS.md by the number of weights; a GPU is far quicker.
_STEP = {"tiny": 1.0, "small": 4.0, "base": 13.0, "large": 45.0}
_IMAGE = {"tiny": 0.02, "small": 0.05, "base": 0.15, "large": 0.5}


@dataclass(frozen=True)
class Variant:
    """name: in tables and keys, of one variant only. method, explainer: of METHODS and EXPLAINERS. masks: "annotated" or
    "automatic". per_class: samples of each of `classes` classes (None: the setting, 500). class_seed: None for the first classes.
    seed: of the run; sample_seed: None for the first samples of each class. factor: times the model's rate. options: further
    arguments of `finetune`. published: (method, masks) of the paper's tables, None where they have none such."""

    name: str
    method: str = "relevance"
    masks: str = "annotated"
    explainer: str = "gae"
    per_class: int = 3
    classes: int | None = None
    class_seed: int | None = None
    sample_seed: int | None = None
    seed: int = 0
    factor: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)
    published: tuple[str, str] | None = None

    @property
    def key(self) -> str:
        """Its name in keys, which are names of files."""
        return re.sub(r"[^A-Za-z0-9.+-]+", "_", self.name)


def settings_of(data: Data) -> dict[str, Any]:
    """The numbers of all runs: epochs, classes of set A, images of a measurement at most, size of the pictures for masks."""
    usual: dict[str, Any] = {"epochs": EPOCHS, "batch_size": BATCH, "classes": CLASSES, "limit": None}
    usual |= {"mask_model": DINO, "mask_size": None}
    return usual | {key: value for key, value in data.settings.items() if key in usual and value is not None}


def run_key(model: PaperModel, variant: Variant) -> str:
    """The key of a fine-tuning, and the name of its folder."""
    return f"{model.name}-{variant.key}-seed-{variant.seed}"


def split_key(variant: Variant, data: Data) -> str:
    """The key of a choice of samples, and the name of its manifest."""
    classes = variant.classes or settings_of(data)["classes"]
    parts = [f"samples-{variant.masks}-{classes}x{variant.per_class}"]
    parts += [] if variant.class_seed is None else [f"classes-{variant.class_seed}"]
    parts += [] if variant.sample_seed is None else [f"drawn-{variant.sample_seed}"]
    return "-".join(parts)


def default_split(data: Data) -> str:
    """The choice that tells set A from the rest."""
    return split_key(Variant(""), data)


def mask_jobs(masks: str, data: Data) -> list[Job]:
    """The job that makes the masks. Where there are annotated ones, the automatic ones are made of the same pictures."""
    annotated = Job(
        "masks-annotated", f"{_WORK}:annotated_masks", {"protocol": data.protocol}, (IMAGENET_S,), seconds=600
    )
    if masks == "annotated":
        return [annotated]
    has_annotated = IMAGENET_S in data.found
    needs = () if has_annotated or PUBLISHED_MASKS in data.found else (TRAIN,)
    after = (annotated.key,) if has_annotated else ()
    arguments = {"backbone": settings_of(data)["mask_model"], "size": settings_of(data)["mask_size"]}
    made = Job("masks-automatic", f"{_WORK}:automatic_masks", arguments, needs, after, seconds=9000)
    return [annotated, made] if has_annotated else [made]


def split_jobs(variant: Variant, data: Data) -> list[Job]:
    """Masks and samples of a variant."""
    arguments = {
        "masks": variant.masks,
        "classes": variant.classes or settings_of(data)["classes"],
        "per_class": variant.per_class,
        "seed": variant.sample_seed,
        "class_seed": variant.class_seed,
        "name": split_key(variant, data),
    }
    masks = mask_jobs(variant.masks, data)
    return [*masks, Job(split_key(variant, data), f"{_WORK}:samples", arguments, after=(masks[-1].key,), seconds=30)]


def original_jobs(model: PaperModel, data: Data) -> list[Job]:
    """What has to be done before the original can be measured: nothing, but for a self-supervised backbone."""
    if not model.probe:
        return []
    needs = tuple(filter(None, (TRAIN, model.need)))
    arguments = {"name": model.name, "model": model.spec(), "protocol": data.protocol}
    return [Job(f"{model.name}-probe", f"{_WORK}:probe", arguments, needs, seconds=200_000)]


def run_jobs_of(model: PaperModel, variant: Variant, data: Data) -> list[Job]:
    """The fine-tuning with all that it needs."""
    numbers = settings_of(data)
    before = [*original_jobs(model, data), *split_jobs(variant, data)]
    samples = (variant.classes or numbers["classes"]) * variant.per_class
    steps = numbers["epochs"] * -(-samples // numbers["batch_size"])
    trials = 6 if model.lr is None else 1  # the rule tries a grid of rates first
    arguments: dict[str, Any] = {
        "name": run_key(model, variant),
        "model": model.spec(),
        "protocol": data.protocol,
        "masks": variant.masks,
        "split": split_key(variant, data),
        "method": variant.method,
        "seed": variant.seed,
        "settings": {"epochs": numbers["epochs"], "batch_size": numbers["batch_size"]},
    }
    arguments |= {"explainer": variant.explainer} if variant.explainer != "gae" else {}
    arguments |= {"factor": variant.factor} if variant.factor != 1.0 else {}
    arguments |= {"options": dict(variant.options)} if variant.options else {}
    seconds = trials * (steps * _STEP[size_of(model)] + numbers["epochs"] * VALIDATION * 3 * _IMAGE[size_of(model)])
    after = (*(job.key for job in original_jobs(model, data)), split_key(variant, data))
    needs = (model.need,) if model.need else ()
    return [*before, Job(run_key(model, variant), f"{_WORK}:train", arguments, needs, after, seconds)]


def evaluation_key(model: PaperModel, variant: Variant | None, benchmark: str) -> str:
    """The key of a model's hits on a benchmark."""
    name = f"{model.name}-original" if variant is None else run_key(model, variant)
    return f"{name}-on-{benchmark.replace('/', '+')}"


def evaluation_job(model: PaperModel, variant: Variant | None, benchmark: str, data: Data) -> Job:
    """A model's hits on a benchmark; of the original for no variant."""
    key = evaluation_key(model, variant, benchmark)
    arguments = {
        "name": key,
        "model": model.spec(),
        "run": None if variant is None else run_key(model, variant),
        "benchmark": benchmark,
        "protocol": data.protocol,
    }
    seconds = IMAGES.get(benchmark, 50_000) * _IMAGE[size_of(model)]
    return Job(key, f"{_WORK}:evaluate", arguments, *_depends(model, variant, benchmark, data), seconds)


def measurement_key(model: PaperModel, variant: Variant | None, test: str, source: str) -> str:
    """The key of a test."""
    name = f"{model.name}-original" if variant is None else run_key(model, variant)
    return f"{name}-{test}-{source.split()[0].split('/')[0]}"


def measurement_job(
    model: PaperModel,
    variant: Variant | None,
    test: str,
    source: str,
    data: Data,
    limit: int | None,
    options: Mapping[str, Any],
    cost: float,
) -> Job:
    """A test of relevit.evaluation.measurements; cost: in forward passes an image."""
    key = measurement_key(model, variant, test, source)
    most = settings_of(data)["limit"] or limit
    arguments: dict[str, Any] = {
        "test": test,
        "data": source,
        "model": model.spec(),
        "run": None if variant is None else run_key(model, variant),
        "protocol": data.protocol,
        "limit": most,
    }
    arguments |= {"options": dict(options)} if options else {}
    seconds = (most or 4276) * cost * _IMAGE[size_of(model)]
    return Job(key, f"{_WORK}:measure", arguments, *_depends(model, variant, source, data), seconds)


def _depends(
    model: PaperModel, variant: Variant | None, source: str, data: Data
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """needs and after of what is measured."""
    needs = tuple(filter(None, (source, model.need)))
    before = original_jobs(model, data)
    return needs, tuple(job.key for job in before) if variant is None else (run_key(model, variant),)


def size_of(model: PaperModel) -> str:
    """tiny, small, base or large, by timm's name; base where it says nothing."""
    return next((size for size in _STEP if f"_{size}_" in model.architecture), "base")


IMAGES = {
    "imagenet": 50_000,
    "imagenet-a": 7_500,
    "imagenet-r": 30_000,
    "imagenet-sketch": 50_889,
    "imagenet-v2": 10_000,
    "objectnet": 18_574,
    "si-score-location": 541_750,
    "si-score-rotation": 39_540,
    "si-score-size": 92_884,
}
