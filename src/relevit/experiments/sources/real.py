"""Data sets in the layouts of their publishers as a source of experiments: the paper's models, its jobs by their keys, and how their
results are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from relevit.data.classes import match_classes
from relevit.evaluation import Predictions
from relevit.experiments.experiment import ACCURACY, EFFECTS, Arm, Data, Design, Run
from relevit.experiments.hits import first_answers
from relevit.experiments.jobs import Job, Outcome
from relevit.experiments.results import ORIGINAL, Cell
from relevit.experiments.sources.models import SELF_SUPERVISED, PaperModel, chosen_models
from relevit.experiments.sources.places import IMAGENET_S, PUBLISHED_MASKS, TRAIN

WORK = "relevit.experiments.sources.real_work"
PAPERS: dict[str, Any] = {"epochs": 50, "classes": 500}  # of a fine-tuning; classes of set A
SETTINGS: dict[str, Any] = {
    **PAPERS,
    "batch_size": 8,
    "limit": None,  # images of a measurement at most
    "mask_model": "vit_base_patch16_224.dino",  # for automatic masks (protocol)
    "mask_size": None,  # of the pictures for masks
}
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


@dataclass(frozen=True)
class Real:
    """A Source (plan.py)."""

    data: Data
    over: Literal["seeds", "models"] = "models"

    @property
    def classes(self) -> Mapping[str, str]:
        return {}

    @property
    def settings(self) -> dict[str, Any]:
        """The numbers of all runs."""
        given = {key: value for key, value in self.data.settings.items() if key in SETTINGS and value is not None}
        return SETTINGS | given

    def models(self, design: Design) -> Sequence[PaperModel]:
        if design.models == "self_supervised":
            return (self.data.settings.get("self_supervised") or SELF_SUPERVISED,)
        models = self.data.models or chosen_models(())
        if design.models == "base":
            return tuple(model for model in models if model.base) or models[:1]
        return models[:1] if design.models == "first" else models

    # Jobs.

    def preparation(self, design: Design, model: PaperModel, run: Run | None) -> list[Job]:
        pages = design.test == EFFECTS  # which are made of evaluations
        evaluations = [self.evaluation(model, run, name) for name in design.sets] if pages else []
        if run is not None:
            return [*self.training(model, run), *evaluations]
        samples = self.samples(USUAL) if {"set_a", "rest"} & set(design.groups) else []
        return evaluations if pages else [*samples, *self.probe(model)]

    def tests(self, design: Design, model: PaperModel, run: Run | None) -> Mapping[str, Job]:
        if design.test == EFFECTS:
            return {} if run is None else {name: self.page(model, run, name) for name in design.sets}
        if design.test == ACCURACY:
            return {name: self.evaluation(model, run, name) for name in design.sets}
        return {name: self.measurement(design, model, run) for name in design.sets}

    def masks(self, masks: str) -> list[Job]:
        """The job that makes the masks, last. Where there are annotated ones, the automatic ones are made of the same pictures."""
        arguments: dict[str, Any] = {"protocol": self.data.protocol}
        annotated = Job("masks-annotated", f"{WORK}:annotated_masks", arguments, (IMAGENET_S,), seconds=600)
        if masks == "annotated":
            return [annotated]
        has_annotated = IMAGENET_S in self.data.found
        needs = () if has_annotated or PUBLISHED_MASKS in self.data.found else (TRAIN,)
        arguments = {"backbone": self.settings["mask_model"], "size": self.settings["mask_size"]}
        after = (annotated.key,) if has_annotated else ()
        made = Job("masks-automatic", f"{WORK}:automatic_masks", arguments, needs, after, seconds=9000)
        return [annotated, made] if has_annotated else [made]

    def samples(self, arm: Arm) -> list[Job]:
        """Masks and samples of an arm; the last key is the name of its manifest."""
        classes = arm.classes or self.settings["classes"]
        parts = [f"samples-{arm.masks}-{classes}x{arm.per_class}"]
        parts += [] if arm.class_seed is None else [f"classes-{arm.class_seed}"]
        parts += [] if arm.sample_seed is None else [f"drawn-{arm.sample_seed}"]
        arguments = {
            "masks": arm.masks,
            "classes": classes,
            "per_class": arm.per_class,
            "seed": arm.sample_seed,
            "class_seed": arm.class_seed,
            "name": "-".join(parts),
        }
        masks = self.masks(arm.masks)
        return [*masks, Job("-".join(parts), f"{WORK}:samples", arguments, after=(masks[-1].key,), seconds=30)]

    def probe(self, model: PaperModel) -> list[Job]:
        """What has to be done before the original can be measured: nothing, but for a self-supervised backbone."""
        if not model.probe:
            return []
        needs = tuple(filter(None, (TRAIN, model.need)))
        arguments = {"name": model.name, "model": model.spec(), "protocol": self.data.protocol}
        return [Job(f"{model.name}-probe", f"{WORK}:probe", arguments, needs, seconds=200_000)]

    def training(self, model: PaperModel, run: Run) -> list[Job]:
        """A fine-tuning with all that it needs."""
        arm, numbers, size = run.arm, self.settings, size_of(model)
        first, samples = self.probe(model), self.samples(run.arm)
        arguments: dict[str, Any] = {
            "name": run_key(model, run),
            "model": model.spec(),
            "protocol": self.data.protocol,
            "masks": arm.masks,
            "split": samples[-1].key,
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
        after = (*(job.key for job in first), samples[-1].key)
        needs = (model.need,) if model.need else ()
        return [*first, *samples, Job(run_key(model, run), f"{WORK}:train", arguments, needs, after, seconds)]

    def evaluation(self, model: PaperModel, run: Run | None, benchmark: str) -> Job:
        """A model's hits on a benchmark."""
        key = f"{run_key(model, run)}-on-{benchmark.replace('/', '+')}"
        arguments = {"name": key, **self._measured(model, run), "benchmark": benchmark}
        seconds = IMAGES.get(benchmark, 50_000) * _IMAGE[size_of(model)]
        return Job(key, f"{WORK}:evaluate", arguments, *self._depends(model, run, benchmark), seconds)

    def measurement(self, design: Design, model: PaperModel, run: Run | None) -> Job:
        """A measurement of relevit.evaluation."""
        (name,), most = design.sets, self.settings["limit"] or design.limit
        arguments = {"test": design.test, "data": name, **self._measured(model, run), "limit": most}
        arguments |= {"options": dict(design.options)} if design.options else {}
        seconds = (most or 4276) * design.cost * _IMAGE[size_of(model)]
        key = f"{run_key(model, run)}-{design.test}-{name.split()[0].split('/')[0]}"
        return Job(key, f"{WORK}:measure", arguments, *self._depends(model, run, name), seconds)

    def page(self, model: PaperModel, run: Run, benchmark: str) -> Job:
        """The page of what a fine-tuning changed on a benchmark; its key is the name of its folder."""
        before, after = (self.evaluation(model, which, benchmark).key for which in (None, run))
        key = f"{run_key(model, run)}-effects-on-{benchmark.replace('/', '+')}"
        arguments = {
            **self._measured(model, run),
            "variant": run.arm.name,
            "benchmark": benchmark,
            "rows_before": before,
            "rows_after": after,
            "name": key,
        }
        return Job(key, f"{WORK}:effects", arguments, (benchmark,), (before, after), seconds=120)

    def _measured(self, model: PaperModel, run: Run | None) -> dict[str, Any]:
        """Which model is measured, and how."""
        key = None if run is None else run_key(model, run)
        return {"model": model.spec(), "run": key, "protocol": self.data.protocol}

    def _depends(self, model: PaperModel, run: Run | None, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """needs and after of what is measured."""
        before = [job.key for job in self.probe(model)] if run is None else [run_key(model, run)]
        return tuple(filter(None, (name, model.need))), tuple(before)

    # Results.

    def sets(self, name: str) -> Sequence[str]:
        return [name]

    def counted(
        self, design: Design, rows: Predictions, group: str, outcomes: Mapping[str, Outcome]
    ) -> np.ndarray | None:
        """Told by the name of an image's class, or by its index; of a name that is neither by the first class that is right."""
        if group == "all":
            return np.ones(len(rows), bool)
        split = outcomes.get(self.samples(USUAL)[-1].key)
        if split is None or split.state != "done":
            return None
        names = frozenset(split.result["set_a"])
        numbers = list(_indices(names).values())
        groups, member = np.unique(rows.groups, return_inverse=True)
        index = _indices(frozenset(groups.tolist()))
        by_answer = np.isin(first_answers(rows), numbers)
        known = np.array([name in names or name in index for name in groups], bool)
        inside = np.array([name in names or index.get(name, -1) in numbers for name in groups], bool)
        in_a = np.where(known[member], inside[member], by_answer) if len(groups) else by_answer
        return in_a == (group == "set_a")

    def protocol(self, design: Design) -> str:
        if design.test == EFFECTS:
            return f"{self._how()} Each page is of one fine-tuning with one seed."
        if design.test == ACCURACY:
            return " ".join([self._how(), *_intervals(design), *self._baselines(design)])
        most = self.settings["limit"] or design.limit
        words = design.test.replace("_", " ").replace("knn", "nearest neighbours")
        images = "all images" if most is None else f"{most} images, drawn once,"
        one_seed = "Each fine-tuned row is of one fine-tuning with one seed; there are no intervals."
        return f"{words[0].upper()}{words[1:]} on {images} of {design.sets[0]}. {self._how()} {one_seed}"

    def _how(self) -> str:
        """How it was measured, in a sentence."""
        numbers = self.settings
        how = {
            "paper": "Protocol paper: mean and std 0.5, short side 256, crop 224, 1000 classes compete, ObjectNet's first label.",
            "standard": "Protocol standard: each model's own preprocessing, the benchmarks' own classes.",
        }[self.data.protocol]
        epochs = f"{numbers['epochs']} epoch{'s' if numbers['epochs'] > 1 else ''}"
        return f"{how} Fine-tuning: {epochs}, batches of {numbers['batch_size']}, the best epoch by the loss on validation samples."

    def _baselines(self, design: Design) -> list[str]:
        """At which rates and weights the baselines run, in a sentence; none where there are none."""
        if not any(arm.method.startswith(("gradmask", "rrr")) for arm in design.arms):
            return []
        models = self.models(design)
        ruled = [model.name for model in models if model.lr is None]
        rates = [] if len(ruled) == len(models) else ["at the published learning rates of our method"]
        rates += [f"at rates of their own by the paper's rule ({', '.join(ruled)})"] if ruled else []
        return [
            f"GradMask and RRR run {' or '.join(rates)} and at their default weights: the paper tuned their hyperparameters for "
            "each model, and gives no values."
        ]

    def notes(self, design: Design, values: Sequence[Cell]) -> list[str]:
        """What is not as in the paper, in a sentence; none where all is."""
        numbers = self.settings
        changed = [
            f"{key} {numbers[key]} (the paper: {value})" for key, value in PAPERS.items() if numbers[key] != value
        ]
        return ["Not the paper's setting: " + ", ".join(changed) + "."] if changed else []


def run_key(model: PaperModel, run: Run | None) -> str:
    """The key of a fine-tuning, and the name of its folder; of the original for None."""
    return f"{model.name}-{ORIGINAL}" if run is None else f"{model.name}-{run.arm.file_name}-seed-{run.seed}"


def size_of(model: PaperModel) -> str:
    """tiny, small, base or large, by timm's name; base where it says nothing."""
    return next((size for size in _STEP if f"_{size}_" in model.architecture), "base")


@cache
def _indices(names: frozenset[str]) -> dict[str, int]:
    """ImageNet's class index of each name that has one."""
    return match_classes(sorted(names)).classes


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
