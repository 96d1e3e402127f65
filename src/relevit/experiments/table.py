"""Every experiment of the paper by name: what it asks, where it is in the paper, and how it is done on which data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from relevit.errors import UserError
from relevit.experiments.arms import CONTROL, MAIN, RELEVANCE, SWAP
from relevit.experiments.builtin_plan import GridPlan
from relevit.experiments.class_plan import ClassPlan
from relevit.experiments.filled import Plan
from relevit.experiments.grids import GRIDS, Contrast
from relevit.experiments.measured_plan import MeasuredPlan, PicturesPlan
from relevit.experiments.real.declared import REAL


@dataclass(frozen=True)
class Experiment:
    """builtin: how it is done on the built-in benchmark, None where it is not; on data sets in the layouts of their
    publishers: see real/declared.py."""

    description: str
    where: str
    builtin: Plan | None = None


TEST_FIGURES = {"pixel_accuracy": "pixel accuracy", "miou": "mIoU", "map": "mAP"}
SEGMENTATION = MeasuredPlan(
    "segmentation",
    MAIN,
    ("pixel_accuracy", "miou", "map"),
    limit=200,
    contrasts=tuple(
        Contrast(f"ours raises {TEST_FIGURES[figure]} of the maps as segmentation", "relevance", against, figure)
        for against in ("original", "control")
        for figure in ("pixel_accuracy", "miou", "map")
    ),
    seconds=8,
)
PERTURBATION = MeasuredPlan(
    "perturbation",
    (RELEVANCE, CONTROL, SWAP),
    ("accuracy", "auc_positive_predicted", "auc_negative_predicted", "auc_contrast_predicted"),
    limit=100,
    seeds=3,
    options={"random": "none", "targets": ["predicted"]},
    contrasts=(
        Contrast(
            "maps stay as faithful: the gap between removing little and much relevance",
            "relevance",
            "original",
            "auc_contrast_predicted",
        ),
    ),
    seconds=8,
)
NEIGHBOURS = MeasuredPlan(
    "knn",
    (RELEVANCE, CONTROL, SWAP),
    ("r1", "r5"),
    data="builtin/background_shuffled",
    train="builtin/train",
    limit=400,
    seeds=3,
    contrasts=(Contrast("ours improves the features for nearest neighbours", "relevance", "original", "r1"),),
    seconds=9,
)
SUBSETS = MeasuredPlan(
    "sufficient_subsets",
    (RELEVANCE,),
    ("share_predicted", "found_predicted", "share_other", "found_other"),
    limit=24,
    seeds=2,
    contrasts=(
        Contrast(
            "subsets of few pixels are found for classes that are not in the picture",
            "relevance",
            "original",
            "found_other",
            expects="same",
            margin=10.0,
        ),
    ),
    seconds=25,
)


def _grid(name: str) -> Plan:
    return GridPlan(GRIDS[name])


EXPERIMENTS: dict[str, Experiment] = {
    "table1": Experiment("robustness: ours against other fine-tunings", "Table 1", _grid("table1")),
    "table2": Experiment("robustness to place, rotation and size", "Table 2", _grid("table2")),
    "table3": Experiment("maps as segmentations", "Table 3", SEGMENTATION),
    "table4": Experiment("ablation of the loss", "Table 4", _grid("table4")),
    "figure4": Experiment("classes of the training samples against the rest", "Figure 4", _grid("figure4")),
    "figure1": Experiment(
        "where the original looks", "Figure 1", PicturesPlan(RELEVANCE, ("background_shuffled",), ("unchanged",))
    ),
    "figure2": Experiment(
        "unchanged, corrected and ruined",
        "Figure 2",
        PicturesPlan(RELEVANCE, ("in_distribution",), ("unchanged", "corrected", "ruined")),
    ),
    "figure3": Experiment(
        "corrected on shifted sets",
        "Figure 3",
        PicturesPlan(
            RELEVANCE, ("background_shuffled", "background_unseen", "location", "size", "rotation"), ("corrected",)
        ),
    ),
    "interpolation": Experiment(
        "between the original and the fine-tuned model", "not in the paper", _grid("interpolation")
    ),
    "appendix_a": Experiment("sufficient input subsets", "Appendix A", SUBSETS),
    "appendix_g": Experiment(
        "more pictures",
        "Appendix G",
        PicturesPlan(RELEVANCE, ("background_unseen", "foreground_only"), ("corrected", "unchanged", "ruined")),
    ),
    "appendix_k": Experiment(
        "what changes by class",
        "Appendix K",
        ClassPlan(RELEVANCE, ("in_distribution", "background_shuffled", "background_unseen")),
    ),
    "appendix_l": Experiment("self-supervised backbones with a linear head", "Appendix L", _grid("appendix_l")),
    "appendix_m": Experiment("nearest neighbours on frozen features", "Appendix M", NEIGHBOURS),
    "appendix_n": Experiment("perturbation of pixels by relevance", "Appendix N", PERTURBATION),
    "beyond": Experiment("other losses of masks alone, without labels", "not in the paper", _grid("beyond")),
    "appendix_d": Experiment("the baselines as released and as written", "Appendix D", _grid("appendix_d")),
    "appendix_e": Experiment("small changes of the learning rate", "Appendix E", _grid("appendix_e")),
    "appendix_f": Experiment("seeds and choices of classes", "Appendix F", _grid("appendix_f")),
    "appendix_h": Experiment("samples per class and number of classes", "Appendix H", _grid("appendix_h")),
    "appendix_i": Experiment(
        "classes of the training samples against the rest, every method", "Appendix I", _grid("appendix_i")
    ),
    "appendix_j": Experiment("other explainers as the training signal", "Appendix J", _grid("appendix_j")),
}
ORDER = (
    "table1",
    "table2",
    "table3",
    "table4",
    "beyond",
    "figure4",
    "appendix_i",
    "figure1",
    "figure2",
    "figure3",
    "appendix_g",
    "appendix_e",
    "appendix_n",
    "appendix_m",
    "interpolation",
    "appendix_f",
    "appendix_j",
    "appendix_h",
    "appendix_d",
    "appendix_a",
    "appendix_l",
)


def chosen(names: Sequence[str], data: str) -> list[str]:
    """The experiments of those names in the order in which they are best run; "all" are those that have a plan for the
    data. Raises UserError for a name that there is none of."""
    order = [*ORDER, *(name for name in EXPERIMENTS if name not in ORDER)]
    unknown = [name for name in names if name != "all" and name not in EXPERIMENTS]
    if unknown:
        raise UserError(f"unknown experiment {unknown[0]!r}: choose among all, {', '.join(sorted(EXPERIMENTS))}")
    if not names:
        raise UserError(f"name an experiment: all, {', '.join(sorted(EXPERIMENTS))}")
    wanted = set(names) if "all" not in names else {name for name in order if plan_for(name, data) is not None}
    for name in wanted:
        if plan_for(name, data) is None:
            other = "--data builtin" if data != "builtin" else "--data ROOT"
            raise UserError(f"{name} cannot be run on --data {data}: it is there for {other}")
    return [name for name in order if name in wanted]


def plan_for(name: str, data: str) -> Plan | None:
    """How an experiment is done on "builtin" or on a folder of data sets; None if it is not."""
    experiment = EXPERIMENTS[name]
    return experiment.builtin if data == "builtin" else REAL.get(name)
