"""What an experiment is: arms, the design of their comparison, claims, and what data it is done on. Nothing is computed here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

RATES = (3e-6, 1e-5, 3e-5, 1e-4, 3e-4)  # the grid of the rule for the learning rate
FEWER_RATES = RATES[1:4]
ACCURACY, EFFECTS = "accuracy", "effects"  # the tests that are no measurement of relevit.evaluation
SHIFTED, SHARE = (
    "shifted",
    "foreground_share",
)  # columns that are no test set: a mean of sets, the relevance on the object
EACH_CLASS = "each class"  # in place of groups of classes
GROUPS = {"all": "", "set_a": ", classes of set A", "rest": ", other classes"}  # in sentences


@dataclass(frozen=True)
class Arm:
    """A way to fine-tune a model.

    Attributes:
        name: in tables and in the keys of jobs, of one arm only.
        method, explainer: of relevit.training.methods.METHODS and relevit.explainers.EXPLAINERS.
        masks: "annotated" (of the built-in benchmark the exact ones) or "automatic".
        per_class, classes: samples of each of so many classes; None for the usual number of classes.
        class_seed: of the draw of the classes, None for the usual ones; "run" for the seed of each run.
        sample_seed: of the draw of the samples on real data, None for the first ones of each class.
        seed: of the first run.
        rate_of: the arm whose learning rate it takes, None for its own. rates: the grid of the rule. factor: times that rate.
        start: the model that is fine-tuned: "original", or another that the source of the data makes first.
        options: further arguments of `finetune`.
        together: the row of which it is one run among others; "" for one of its own.
        published: (method, masks) of the paper's tables, None where they have none such.
        pictures_per_object: how many of the pictures of each test object are measured, where there are several.
        cost: of a step, in those of the paper's method.
    """

    name: str
    method: str = "relevance"
    masks: Literal["annotated", "automatic"] = "annotated"
    explainer: str = "gae"
    per_class: int = 3
    classes: int | None = None
    class_seed: int | Literal["run"] | None = None
    sample_seed: int | None = None
    seed: int = 0
    rate_of: Arm | None = None
    rates: tuple[float, ...] = RATES
    factor: float = 1.0
    start: str = "original"
    options: Mapping[str, Any] = field(default_factory=dict)
    together: str = ""
    published: tuple[str, str] | None = None
    pictures_per_object: int = 1
    cost: float = 1.0

    @property
    def label(self) -> str:
        """Its name with the number of samples."""
        return f"{self.name}-{self.per_class}" + ("" if self.classes is None else f"-of-{self.classes}")

    @property
    def row(self) -> str:
        """Its row in the tables."""
        return self.together or self.name

    @property
    def file_name(self) -> str:
        """Its name as a part of a file's."""
        return re.sub(r"[^A-Za-z0-9.+-]+", "_", self.name)


@dataclass(frozen=True)
class Run:
    """One fine-tuning of an arm, or the model at `share` of the way to it from the original (None: all of the way)."""

    arm: Arm
    seed: int
    share: float | None = None

    @property
    def row(self) -> str:
        """Its row in the tables."""
        return self.arm.row if self.share is None else f"{self.arm.row}_{100 * self.share:g}%"


@dataclass(frozen=True)
class Claim:
    """A claim as a paired difference: `arm` less `against`, over the seeds, or models, that both have.

    says: the paper's claim, or the question, in a sentence. arm, against: rows of the table. on, group, figure: a column; "" is the
    one set that is measured. expects: "higher", "lower", or "same" (the interval within `margin` points of zero).
    """

    says: str
    arm: str
    against: str = "original"
    on: str = SHIFTED
    group: str = "all"
    expects: Literal["higher", "lower", "same"] = "higher"
    margin: float = 1.0
    figure: str = "r1"


@dataclass(frozen=True)
class Design:
    """Which arms are compared, on what.

    Attributes:
        arms: the rows of the table, below the original.
        sets: test sets; beside them, of the built-in benchmark, SHIFTED and SHARE.
        claims: what the table is to settle.
        test: ACCURACY; EFFECTS, a page of what an arm changed class by class; or one of relevit.evaluation.measurements.
        figures: of the test's.
        groups: of the classes: "all", "set_a" (those of the samples) and "rest"; or EACH_CLASS.
        seeds: runs of each arm.
        shares: of the way from the original to each arm at which there is a row, too.
        pictures_per_object: how many of the pictures of each test object count.
        limit, train, options: of a measurement: images at most, the set that it trains on, its own options.
        cost: of a measurement: seconds on the built-in benchmark, on real data forward passes an image.
        models: on real data, all of --models, those that Figure 4 averages over, the first, or the self-supervised one.
        table: the paper's table that has the figures.
        rows, averages: whether there are rows for each model, and rows of the average change over the models.
        notes: sentences below the table.
    """

    arms: tuple[Arm, ...]
    sets: tuple[str, ...]
    claims: tuple[Claim, ...] = ()
    test: str = ACCURACY
    figures: tuple[str, ...] = ("r1",)
    groups: tuple[str, ...] = ("all",)
    seeds: int = 1
    shares: tuple[float, ...] = ()
    pictures_per_object: int = 1
    limit: int | None = None
    train: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    cost: float = 10.0
    models: Literal["all", "base", "first", "self_supervised"] = "all"
    table: int | None = None
    rows: bool = True
    averages: bool = False
    notes: tuple[str, ...] = ()

    def runs(self, most: int | None = None) -> dict[str, list[Run]]:
        """The runs of each row below the original, at most `most` of them."""
        found: dict[str, list[Run]] = {}
        for arm in self.arms:
            for share in (*self.shares, None):
                for number in range(self.seeds):
                    run = Run(arm, arm.seed + number, share)
                    found.setdefault(run.row, []).append(run)
        return {row: runs[: most or len(runs)] for row, runs in found.items()}


@dataclass(frozen=True)
class Data:
    """What there is to run on. name: "builtin", or the root folder. found: data set to its folder; missing: data set to
    the reason. seeds: runs of a row at most, None for each experiment's own number. protocol: "standard" or "paper". models:
    those of real data (sources/models.py), none for the paper's. settings: numbers of all runs that are not the paper's."""

    name: str
    found: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    seeds: int | None = None
    protocol: Literal["standard", "paper"] = "standard"
    models: tuple[Any, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """What the paper asks, and how it is done on the built-in benchmark and on data sets in the layouts of their publishers.

    description: in a few words. where: in the paper. builtin, real: a design, or what makes a plan of one's own of the data
    (plan.py: Plan); None where it cannot be done. apart: it is not among "all", and wants a folder of its own.
    """

    description: str
    where: str
    builtin: Design | Callable[[Data], Any] | None = None
    real: Design | Callable[[Data], Any] | None = None
    apart: bool = False

    def on(self, data: str) -> Design | Callable[[Data], Any] | None:
        """How it is done on "builtin" or on a folder of data sets."""
        return self.builtin if data == "builtin" else self.real
