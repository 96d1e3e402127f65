"""The experiments on the built-in benchmark, declared: which arms, over how many seeds, which figures, and the claims as
paired differences. Nothing is computed here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from relevit.experiments.arms import (
    ABLATIONS,
    AS_RELEASED,
    AUTOMATIC,
    BEYOND,
    BY_SAMPLES,
    CLASSES,
    CONTROL,
    CONTROL_SLOWER,
    EXPLAINERS,
    GRADMASK,
    HEADED,
    LABEL_FREE,
    MAIN,
    NEAR_RATES,
    OTHER_CLASSES,
    RELEVANCE,
    RRR,
    SAMPLES,
    SWAP,
    WEIGHTED,
)
from relevit.experiments.cells import Arm, cell_job, cell_key, original_job, rate_jobs, start_jobs
from relevit.experiments.jobs import Job


@dataclass(frozen=True)
class Contrast:
    """A claim as a paired difference: `arm` less `against`, on a set and a group, over the seeds that both have.

    arm, against: rows of the table. expects: "higher", "lower", or "same" (the interval within `margin` points of zero).
    says: the paper's claim, or the question, in a sentence.
    """

    says: str
    arm: str
    against: str
    on: str = "shifted"
    group: str = "all"
    expects: Literal["higher", "lower", "same"] = "higher"
    margin: float = 1.0
    figure: str = "r1"


@dataclass(frozen=True)
class Entry:
    """A row: an arm, or the model at `share` of the way to it from the original."""

    arm: Arm
    share: float | None = None
    views: int = 1

    @property
    def row(self) -> str:
        return self.arm.row if self.share is None else f"{self.arm.row}_{100 * self.share:g}%"

    def key(self, seed: int) -> str:
        """The key of the job with its hits."""
        key = cell_key(self.arm, seed)
        return key if self.share is None else f"{key}-interpolated-{self.share:g}"

    def jobs(self, seed: int) -> list[Job]:
        cell = cell_job(self.arm, seed)
        if self.share is None:
            return [cell]
        arguments = {"name": cell.key, "share": self.share, "views": self.views}
        function = "relevit.experiments.measured:interpolated"
        return [cell, Job(self.key(seed), function, arguments, after=(cell.key,), seconds=4 + 10 * self.views)]


@dataclass(frozen=True)
class Grid:
    """arms: the rows of the table, below the original. sets: its columns: test sets, "shifted" for the mean of all
    shifted ones, "foreground_share". views: pictures of each test object that count. seeds: how many. groups: "all",
    "set_a" and "rest" of the classes. figures: "r1", "r5". shares: of the way from the original to each arm at which there is
    a row too. table: the paper's table whose rows of average change are quoted below."""

    arms: tuple[Arm, ...]
    sets: tuple[str, ...]
    contrasts: tuple[Contrast, ...] = ()
    views: int = 1
    seeds: int = 5
    groups: tuple[str, ...] = ("all",)
    figures: tuple[str, ...] = ("r1",)
    shares: tuple[float, ...] = ()
    table: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def start(self) -> str:
        """The model that all arms fine-tune, the first row."""
        return self.arms[0].start

    def entries(self) -> list[Entry]:
        """The rows: every arm, and the models on the way to it from the original."""
        return [
            entry
            for arm in self.arms
            for entry in (*(Entry(arm, share, self.views) for share in self.shares), Entry(arm))
        ]

    def jobs(self, seeds: int | None = None) -> list[Job]:
        """The original, the rates of all arms, and a cell for each arm and seed: seeds before arms, so that whole
        comparisons end first."""
        rates = [job for arm in self.arms for job in rate_jobs(arm)]
        count = min(self.seeds, seeds or self.seeds)
        cells = [job for seed in range(count) for entry in self.entries() for job in entry.jobs(seed)]
        return [*start_jobs(self.start), original_job(self.start), *rates, *cells]


BACKGROUNDS = ("in_distribution", "background_shuffled", "background_unseen", "foreground_only", "shifted")
PLACES = ("location", "rotation", "size")
EVERY = ("in_distribution", "background_shuffled", "background_unseen", *PLACES, "foreground_only", "shifted")


def _against_baselines(arm: str, on: str) -> tuple[Contrast, ...]:
    return (
        Contrast("ours raises accuracy on shifted sets", arm, "original", on),
        Contrast("ours does better than GradMask", arm, "gradmask", on),
        Contrast("ours does better than RRR", arm, "rrr", on),
        Contrast("ours does better than cross-entropy on the same samples (our question)", arm, "control", on),
        Contrast("ours does better than background swap (our question)", arm, "background_swap", on),
    )


GRIDS: dict[str, Grid] = {
    "table1": Grid(
        (*MAIN, CONTROL_SLOWER),
        BACKGROUNDS,
        (
            *_against_baselines("relevance", "shifted"),
            Contrast(
                "ours does better than cross-entropy at the same rate (our question)", "relevance", CONTROL_SLOWER.name
            ),
            Contrast(
                "ours costs a modest drop in distribution", "relevance", "original", "in_distribution", expects="lower"
            ),
            Contrast("automatic masks do as well as annotated ones", AUTOMATIC.name, "relevance", expects="same"),
        ),
        views=3,
        figures=("r1", "r5"),
        table=1,
    ),
    "table2": Grid(
        MAIN,
        PLACES,
        tuple(c for on in PLACES for c in _against_baselines("relevance", on)[:3]),
        views=3,
        figures=("r1", "r5"),
        table=2,
    ),
    "table4": Grid(
        (RELEVANCE, *ABLATIONS),
        EVERY,
        (
            Contrast(
                "without the classification term accuracy falls in distribution",
                "without_classification",
                "relevance",
                "in_distribution",
                expects="lower",
            ),
            Contrast(
                "without the background term robustness is less", "without_background", "relevance", expects="lower"
            ),
            Contrast(
                "without the foreground term robustness is less", "without_foreground", "relevance", expects="lower"
            ),
            Contrast("the labels in place of confidence do not do better", "with_labels", "relevance", expects="lower"),
            Contrast(
                "the background term alone costs accuracy in distribution",
                "only_background",
                "original",
                "in_distribution",
                expects="lower",
            ),
            Contrast(
                "the foreground term alone costs accuracy in distribution",
                "only_foreground",
                "original",
                "in_distribution",
                expects="lower",
            ),
        ),
    ),
    "beyond": Grid(
        (SWAP, RELEVANCE, LABEL_FREE, *BEYOND),
        (*EVERY, "foreground_share"),
        tuple(
            Contrast(f"{arm.name.replace('_', ' ')} does better than the paper's loss", arm.name, "relevance")
            for arm in (LABEL_FREE, *BEYOND)
        )
        + tuple(
            Contrast(f"{arm.name.replace('_', ' ')} raises accuracy on shifted sets", arm.name, "original")
            for arm in (LABEL_FREE, *BEYOND)
        )
        + tuple(
            Contrast(
                f"{arm.name.replace('_', ' ')}, without labels, does as well as background swap with them",
                arm.name,
                "background_swap",
                expects="same",
            )
            for arm in BEYOND
        )
        + tuple(
            Contrast(
                f"{arm.name.replace('_', ' ')} does better than the paper's loss on the classes without samples",
                arm.name,
                "relevance",
                group="rest",
            )
            for arm in (SWAP, *BEYOND)
        ),
        groups=("all", "set_a", "rest"),
    ),
    "appendix_d": Grid(
        (
            RELEVANCE,
            CONTROL,
            AS_RELEASED[0],
            GRADMASK,
            *WEIGHTED["gradmask"],
            AS_RELEASED[1],
            RRR,
            *WEIGHTED["rrr"],
        ),
        EVERY,
        (
            Contrast(
                "GradMask as released amounts to cross-entropy", "gradmask_as_released", "control", expects="same"
            ),
            Contrast("RRR as released amounts to cross-entropy", "rrr_as_released", "control", expects="same"),
            Contrast("GradMask with its gradient does better than cross-entropy", "gradmask", "control"),
            Contrast("RRR with its gradient does better than cross-entropy", "rrr", "control"),
            *(
                Contrast(f"{arm.method} at this weight does better than cross-entropy", arm.name, "control")
                for arms in WEIGHTED.values()
                for arm in arms
            ),
            *(
                Contrast(f"ours does better than {arm.method} at this weight", "relevance", arm.name)
                for arms in WEIGHTED.values()
                for arm in arms
            ),
        ),
        notes=(
            "The paper tuned the weights of GradMask and RRR for each model and gives no values. On the first batch here "
            "GradMask's term is hundreds of times smaller than cross-entropy, RRR's thousands of times larger: so the grid "
            "goes up from the usual weight (0.8) for one and down for the other. Each weight has a rate of its own by the "
            "rule; no weight was chosen by any figure.",
        ),
        seeds=3,
    ),
    "appendix_j": Grid(
        (RELEVANCE, *EXPLAINERS),
        (*EVERY, "foreground_share"),
        tuple(
            Contrast(f"GAE trains better than {arm.explainer.replace('_', ' ')}", "relevance", arm.name)
            for arm in EXPLAINERS
        ),
        seeds=3,
    ),
    "appendix_h": Grid(
        BY_SAMPLES,
        EVERY,
        tuple(
            Contrast(
                f"{n} sample{'s' if n > 1 else ''} of each of {of} classes raise{'' if n > 1 else 's'} accuracy on shifted sets",
                arm.row,
                "original",
            )
            for arm, (of, n) in zip(BY_SAMPLES, ((of, n) for of in CLASSES for n in SAMPLES), strict=True)
        )
        + tuple(
            Contrast(f"with {arm.per_class} of each of 10 classes, {who} gain", arm.row, "original", group=group)
            for arm in BY_SAMPLES
            if arm.classes == 10
            for who, group in (("these classes", "set_a"), ("the other classes", "rest"))
        ),
        seeds=3,
        groups=("all", "set_a", "rest"),
    ),
    "appendix_e": Grid(
        (RELEVANCE, *NEAR_RATES),
        EVERY,
        tuple(
            Contrast(
                f"a learning rate {arm.factor:g} times as high matters little", arm.name, "relevance", expects="same"
            )
            for arm in NEAR_RATES
        ),
        seeds=3,
    ),
    "appendix_f": Grid(
        (RELEVANCE, AUTOMATIC, OTHER_CLASSES),
        EVERY,
        (
            Contrast("over seeds, ours raises accuracy on shifted sets", "relevance", "original"),
            Contrast("over choices of classes, ours raises accuracy on shifted sets", OTHER_CLASSES.name, "original"),
            Contrast("another choice of classes changes little", OTHER_CLASSES.name, "relevance", expects="same"),
        ),
    ),
    "appendix_l": Grid(
        HEADED,
        EVERY,
        (
            Contrast("ours raises accuracy on shifted sets after a linear probe", HEADED[0].name, "original"),
            Contrast("so it does with automatic masks", HEADED[1].name, "original"),
            Contrast("ours does better than cross-entropy after a linear probe", HEADED[0].name, HEADED[2].name),
        ),
        seeds=3,
        notes=(
            "The original is here the built-in backbone with a new head, a linear probe of its frozen features. That backbone was "
            "trained with labels: this shows that the path works; the claim about self-supervised backbones needs --data ROOT.",
        ),
    ),
    "figure4": Grid(
        (RELEVANCE, AUTOMATIC),
        EVERY,
        (
            Contrast("classes of the training set gain on shifted sets", "relevance", "original", group="set_a"),
            Contrast("so do the others", "relevance", "original", group="rest"),
        ),
        views=3,
        groups=("set_a", "rest"),
        figures=("r1", "r5"),
    ),
}
GRIDS["appendix_i"] = replace(GRIDS["figure4"], arms=MAIN)
GRIDS["interpolation"] = Grid(
    (RELEVANCE, CONTROL, SWAP),
    EVERY,
    (
        Contrast(
            "half-way there is as good on shifted sets as all the way", "relevance_50%", "relevance", expects="same"
        ),
        Contrast("half-way there is better than the original", "relevance_50%", "original"),
        Contrast("half-way to cross-entropy is better than all the way", "control_50%", "control"),
        Contrast("half-way to background swap is better than the original", "background_swap_50%", "original"),
        Contrast(
            "half-way to background swap costs nothing in distribution",
            "background_swap_50%",
            "original",
            "in_distribution",
            expects="same",
        ),
    ),
    seeds=3,
    shares=(0.25, 0.5, 0.75),
)
