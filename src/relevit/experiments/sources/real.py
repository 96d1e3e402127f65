"""Data sets in the layouts of their publishers as a source of experiments: the paper's models, its jobs by their keys, and how their
results are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from relevit.evaluation import Predictions
from relevit.experiments.experiment import ACCURACY, EFFECTS, Arm, Design, Run
from relevit.experiments.hits import first_answers
from relevit.experiments.jobs import Job, Outcome
from relevit.experiments.plan import Data
from relevit.experiments.published import average_change, published
from relevit.experiments.results import ORIGINAL, Value
from relevit.experiments.sources.models import SELF_SUPERVISED, PaperModel, chosen_models
from relevit.experiments.sources.places import IMAGENET_S, PUBLISHED_MASKS, TRAIN

WORK = "relevit.experiments.sources.real_work"
CLASSES, EPOCHS, BATCH = 500, 50, 8
DINO = "vit_base_patch16_224.dino"  # for automatic masks (protocol)
VALIDATION = 414  # samples, of the other classes
# Seconds of one core, rough: of a training step of 8 images and of one image's forward pass, by size of the model. Estimated from the
# CPU figures of benchmarks/RESULTS.md by the number of weights; a GPU is far quicker.
_STEP = {"tiny": 1.0, "small": 4.0, "base": 13.0, "large": 45.0}
_IMAGE = {"tiny": 0.02, "small": 0.05, "base": 0.15, "large": 0.5}
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
USUAL = Arm("")  # whose samples tell set A from the rest


# Jobs.


def settings_of(data: Data) -> dict[str, Any]:
    """The numbers of all runs: epochs, classes of set A, images of a measurement at most, size of the pictures for masks."""
    usual: dict[str, Any] = {"epochs": EPOCHS, "batch_size": BATCH, "classes": CLASSES, "limit": None}
    usual |= {"mask_model": DINO, "mask_size": None}
    return usual | {key: value for key, value in data.settings.items() if key in usual and value is not None}


def run_key(model: PaperModel, run: Run) -> str:
    """The key of a fine-tuning, and the name of its folder."""
    return f"{model.name}-{run.arm.file_name}-seed-{run.seed}"


def model_key(model: PaperModel, run: Run | None) -> str:
    """Of a fine-tuned model, or of the original for None."""
    return f"{model.name}-{ORIGINAL}" if run is None else run_key(model, run)


def split_key(arm: Arm, data: Data) -> str:
    """The key of a choice of samples, and the name of its manifest."""
    parts = [f"samples-{arm.masks}-{arm.classes or settings_of(data)['classes']}x{arm.per_class}"]
    parts += [] if arm.class_seed is None else [f"classes-{arm.class_seed}"]
    parts += [] if arm.sample_seed is None else [f"drawn-{arm.sample_seed}"]
    return "-".join(parts)


def mask_jobs(masks: str, data: Data) -> list[Job]:
    """The job that makes the masks. Where there are annotated ones, the automatic ones are made of the same pictures."""
    arguments: dict[str, Any] = {"protocol": data.protocol}
    annotated = Job("masks-annotated", f"{WORK}:annotated_masks", arguments, (IMAGENET_S,), seconds=600)
    if masks == "annotated":
        return [annotated]
    has_annotated = IMAGENET_S in data.found
    needs = () if has_annotated or PUBLISHED_MASKS in data.found else (TRAIN,)
    after = (annotated.key,) if has_annotated else ()
    arguments = {"backbone": settings_of(data)["mask_model"], "size": settings_of(data)["mask_size"]}
    made = Job("masks-automatic", f"{WORK}:automatic_masks", arguments, needs, after, seconds=9000)
    return [annotated, made] if has_annotated else [made]


def split_jobs(arm: Arm, data: Data) -> list[Job]:
    """Masks and samples of an arm."""
    arguments = {
        "masks": arm.masks,
        "classes": arm.classes or settings_of(data)["classes"],
        "per_class": arm.per_class,
        "seed": arm.sample_seed,
        "class_seed": arm.class_seed,
        "name": split_key(arm, data),
    }
    masks = mask_jobs(arm.masks, data)
    return [*masks, Job(split_key(arm, data), f"{WORK}:samples", arguments, after=(masks[-1].key,), seconds=30)]


def original_jobs(model: PaperModel, data: Data) -> list[Job]:
    """What has to be done before the original can be measured: nothing, but for a self-supervised backbone."""
    if not model.probe:
        return []
    needs = tuple(filter(None, (TRAIN, model.need)))
    arguments = {"name": model.name, "model": model.spec(), "protocol": data.protocol}
    return [Job(f"{model.name}-probe", f"{WORK}:probe", arguments, needs, seconds=200_000)]


def training_jobs(model: PaperModel, run: Run, data: Data) -> list[Job]:
    """A fine-tuning with all that it needs."""
    arm, numbers, size = run.arm, settings_of(data), size_of(model)
    first = original_jobs(model, data)
    arguments: dict[str, Any] = {
        "name": run_key(model, run),
        "model": model.spec(),
        "protocol": data.protocol,
        "masks": arm.masks,
        "split": split_key(arm, data),
        "method": arm.method,
        "seed": run.seed,
        "settings": {"epochs": numbers["epochs"], "batch_size": numbers["batch_size"]},
    }
    arguments |= {"explainer": arm.explainer} if arm.explainer != USUAL.explainer else {}
    arguments |= {"factor": arm.factor} if arm.factor != 1.0 else {}
    arguments |= {"options": dict(arm.options)} if arm.options else {}
    steps = numbers["epochs"] * -(-(arm.classes or numbers["classes"]) * arm.per_class // numbers["batch_size"])
    trials = 6 if model.lr is None else 1  # the rule tries a grid of rates first
    seconds = trials * (steps * _STEP[size] + numbers["epochs"] * VALIDATION * 3 * _IMAGE[size])
    after = (*(job.key for job in first), split_key(arm, data))
    needs = (model.need,) if model.need else ()
    tuning = Job(run_key(model, run), f"{WORK}:train", arguments, needs, after, seconds)
    return [*first, *split_jobs(arm, data), tuning]


def evaluation_key(model: PaperModel, run: Run | None, benchmark: str) -> str:
    """The key of a model's hits on a benchmark."""
    return f"{model_key(model, run)}-on-{benchmark.replace('/', '+')}"


def evaluation_job(model: PaperModel, run: Run | None, benchmark: str, data: Data) -> Job:
    """A model's hits on a benchmark."""
    key = evaluation_key(model, run, benchmark)
    arguments = {"name": key, **_measured(model, run, data), "benchmark": benchmark}
    seconds = IMAGES.get(benchmark, 50_000) * _IMAGE[size_of(model)]
    return Job(key, f"{WORK}:evaluate", arguments, *_depends(model, run, benchmark, data), seconds)


def measurement_key(design: Design, model: PaperModel, run: Run | None) -> str:
    """The key of a measurement."""
    return f"{model_key(model, run)}-{design.test}-{design.sets[0].split()[0].split('/')[0]}"


def measurement_job(design: Design, model: PaperModel, run: Run | None, data: Data) -> Job:
    """A measurement of relevit.evaluation."""
    (source,), most = design.sets, settings_of(data)["limit"] or design.limit
    arguments = {"test": design.test, "data": source, **_measured(model, run, data), "limit": most}
    arguments |= {"options": dict(design.options)} if design.options else {}
    seconds = (most or 4276) * design.cost * _IMAGE[size_of(model)]
    key = measurement_key(design, model, run)
    return Job(key, f"{WORK}:measure", arguments, *_depends(model, run, source, data), seconds)


def page_key(model: PaperModel, run: Run, benchmark: str) -> str:
    """The key of a page of changes, and the name of its folder."""
    return f"{run_key(model, run)}-effects-on-{benchmark.replace('/', '+')}"


def page_job(model: PaperModel, run: Run, benchmark: str, data: Data) -> Job:
    """The page of what a fine-tuning changed on a benchmark."""
    before, after = evaluation_key(model, None, benchmark), evaluation_key(model, run, benchmark)
    key = page_key(model, run, benchmark)
    arguments = {
        **_measured(model, run, data),
        "variant": run.arm.name,
        "benchmark": benchmark,
        "rows_before": before,
        "rows_after": after,
        "name": key,
    }
    return Job(key, f"{WORK}:effects", arguments, (benchmark,), (before, after), seconds=120)


def _measured(model: PaperModel, run: Run | None, data: Data) -> dict[str, Any]:
    """Which model is measured, and how."""
    return {"model": model.spec(), "run": None if run is None else run_key(model, run), "protocol": data.protocol}


def _depends(model: PaperModel, run: Run | None, source: str, data: Data) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """needs and after of what is measured."""
    needs = tuple(filter(None, (source, model.need)))
    before = original_jobs(model, data)
    return needs, tuple(job.key for job in before) if run is None else (run_key(model, run),)


def size_of(model: PaperModel) -> str:
    """tiny, small, base or large, by timm's name; base where it says nothing."""
    return next((size for size in _STEP if f"_{size}_" in model.architecture), "base")


# The source.


@dataclass(frozen=True)
class Real:
    """A Source (plan.py)."""

    over: Literal["seeds", "models"] = "models"

    def models(self, design: Design, data: Data) -> Sequence[PaperModel]:
        if design.models == "self_supervised":
            return (data.settings.get("self_supervised") or SELF_SUPERVISED,)
        models = data.models or chosen_models(())
        if design.models == "base":
            return tuple(model for model in models if model.base) or models[:1]
        return models[:1] if design.models == "first" else models

    def before(self, design: Design, model: Any, data: Data) -> list[Job]:
        samples = split_jobs(USUAL, data) if {"set_a", "rest"} & set(design.groups) else []
        if design.test == EFFECTS:
            return [evaluation_job(model, None, name, data) for name in design.sets]
        return [*samples, *original_jobs(model, data), *self._tests(design, model, None, data)]

    def training(self, model: Any, run: Run, data: Data) -> list[Job]:
        return training_jobs(model, run, data)

    def tests(self, design: Design, model: Any, run: Run, data: Data) -> list[Job]:
        pages = [page_job(model, run, name, data) for name in design.sets] if design.test == EFFECTS else []
        return [*self._tests(design, model, run, data), *pages]

    def _tests(self, design: Design, model: Any, run: Run | None, data: Data) -> list[Job]:
        if design.test in (ACCURACY, EFFECTS):
            return [evaluation_job(model, run, name, data) for name in design.sets]
        return [measurement_job(design, model, run, data)]

    def key(self, design: Design, model: Any, run: Run | None, name: str) -> str:
        if design.test == ACCURACY:
            return evaluation_key(model, run, name)
        if design.test == EFFECTS and run is not None:
            return page_key(model, run, name)
        return measurement_key(design, model, run)

    def evaluation(self, design: Design, model: Any, run: Run | None, name: str) -> str:
        return evaluation_key(model, run, name)

    def sets(self, name: str) -> Sequence[str]:
        return [name]

    def first(self, design: Design, rows: Predictions) -> Predictions:
        return rows

    def groups(self, design: Design) -> Sequence[str]:
        return design.groups

    def members(self, rows: Predictions, group: str, outcomes: Mapping[str, Outcome], data: Data) -> np.ndarray | None:
        """Told by the name of an image's class, or by its index; of a name that is neither by the first class that is right."""
        from relevit.data.classes import match_classes

        split = outcomes.get(split_key(USUAL, data))
        if split is None or split.state != "done":
            return None
        names = set(split.result["set_a"])
        numbers = list(match_classes(names).classes.values())
        groups, member = np.unique(rows.groups, return_inverse=True)
        index = match_classes(groups.tolist()).classes
        by_answer = np.isin(first_answers(rows), numbers)
        known = np.array([name in names or name in index for name in groups], bool)
        inside = np.array([name in names or index.get(name, -1) in numbers for name in groups], bool)
        in_a = np.where(known[member], inside[member], by_answer) if len(groups) else by_answer
        return in_a if group == "set_a" else ~in_a

    def over_images(self, run: Run | None) -> bool:
        return True

    def rate(self, model: Any, run: Run | None, result: Any) -> float | None:
        return None if run is None or model.lr is None else model.lr * run.arm.factor

    def published(self, design: Design, model: Any, arm: Arm | None, value: Value) -> float | None:
        """Of several models, the average change over them."""
        method, masks = (ORIGINAL, "none") if arm is None else arm.published or ("", "")
        if design.table is None or value.group != "all" or not method:
            return None
        if not isinstance(model, PaperModel):
            if design.table not in (1, 2) or method != "ours":
                return None
            names = [each.name for each in model]
            return average_change(design.table, method, masks, value.set, value.figure, names)
        name = value.set if design.table != 3 else "segmentation"
        wanted = (model.name, method, masks, name, value.figure)
        cells = published(design.table)
        found = (c.value for c in cells if (c.model, c.method, c.masks, c.benchmark, c.figure) == wanted)
        return next(found, None)

    def class_words(self) -> Mapping[str, str]:
        return {}

    def protocol(self, design: Design, data: Data) -> str:
        if design.test == EFFECTS:
            return f"{_how(data)} Each page is of one fine-tuning with one seed."
        if design.test == ACCURACY:
            return " ".join([_how(data), *_intervals(design), *self._baselines(design, data)])
        most = settings_of(data)["limit"] or design.limit
        words = design.test.replace("_", " ").replace("knn", "nearest neighbours")
        images = "all images" if most is None else f"{most} images, drawn once,"
        one_seed = "Each fine-tuned row is of one fine-tuning with one seed; there are no intervals."
        return f"{words[0].upper()}{words[1:]} on {images} of {design.sets[0]}. {_how(data)} {one_seed}"

    def _baselines(self, design: Design, data: Data) -> list[str]:
        """At which rates and weights the baselines run, in a sentence; none where there are none."""
        if not any(arm.method.startswith(("gradmask", "rrr")) for arm in design.arms):
            return []
        models = self.models(design, data)
        ruled = [model.name for model in models if model.lr is None]
        rates = [] if len(ruled) == len(models) else ["at the published learning rates of our method"]
        rates += [f"at rates of their own by the paper's rule ({', '.join(ruled)})"] if ruled else []
        return [
            f"GradMask and RRR run {' or '.join(rates)} and at their default weights: the paper tuned their hyperparameters for "
            "each model, and gives no values."
        ]

    def notes(self, design: Design, values: Sequence[Value], data: Data) -> list[str]:
        """What is not as in the paper, in a sentence; none where all is."""
        numbers = settings_of(data)
        changed = [
            f"{key} {numbers[key]} (the paper: {value})"
            for key, value in (("epochs", EPOCHS), ("classes", CLASSES))
            if numbers[key] != value
        ]
        return ["Not the paper's setting: " + ", ".join(changed) + "."] if changed else []


def _how(data: Data) -> str:
    """How it was measured, in a sentence."""
    numbers = settings_of(data)
    how = {
        "paper": "Protocol paper: mean and std 0.5, short side 256, crop 224, 1000 classes compete, ObjectNet's first label.",
        "standard": "Protocol standard: each model's own preprocessing, the benchmarks' own classes.",
    }[data.protocol]
    epochs = f"{numbers['epochs']} epoch{'s' if numbers['epochs'] > 1 else ''}"
    return f"{how} Fine-tuning: {epochs}, batches of {numbers['batch_size']}, the best epoch by the loss on validation samples."


def _intervals(design: Design) -> list[str]:
    """Of what the intervals are, in sentences."""
    several = any(len(runs) > 1 for runs in design.runs().values())
    alone = any(len(runs) == 1 for runs in design.runs().values())
    sentences = ["Intervals (95%): of the original Wilson's, over images."] if design.rows else []
    if alone and design.rows:
        sentences += [
            "Each cell of a fine-tuned model is of one fine-tuning with one seed: its interval (Wilson's) and that of its change (Bonett "
            "and Price's) are over the images alone, taken as independent, and say nothing of how much another seed would change."
        ]
    if several:
        sentences += ["Of a mean over several runs Student's t over the runs, the original's figure taken as fixed."]
    if design.averages:
        start = "Of" if design.rows else "Intervals (95%): of"
        sentences += [f"{start} an average change Student's t over the models, each with one seed."]
    return sentences
