"""The paper's experiments by name: what it asks, where it is in the paper, and its designs on the built-in benchmark and on real
data. Details of the appendices, which are not part of the published text, are our choice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from relevit.experiments import arms
from relevit.experiments.arms import AUTOMATIC, CONTROL, MAIN, OURS, OURS_AUTOMATIC, RELEVANCE, SWAP
from relevit.experiments.experiment import EACH_CLASS, EFFECTS, GROUPS, SHARE, SHIFTED, Claim, Design, Experiment
from relevit.experiments.sources.places import GTSEGS, NEIGHBOURS

BACKGROUNDS = ("in_distribution", "background_shuffled", "background_unseen", "foreground_only", SHIFTED)
PLACES = ("location", "rotation", "size")
EVERY = ("in_distribution", "background_shuffled", "background_unseen", *PLACES, "foreground_only", SHIFTED)
MAIN_SETS = ("imagenet", "imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-v2", "objectnet")
SI_SCORE = ("si-score-location", "si-score-rotation", "si-score-size")
ALL_SETS = (*MAIN_SETS, *SI_SCORE)
R1, R1_R5 = ("r1",), ("r1", "r5")
ALL, SET_A_REST, EVERY_GROUP = ("all",), ("set_a", "rest"), ("all", "set_a", "rest")
SEGMENTATION = {"pixel_accuracy": "pixel accuracy", "miou": "mIoU", "map": "mAP"}


# Claims.

GAINS = "ours raises accuracy on shifted sets"


def against_baselines(on: str) -> tuple[Claim, ...]:
    return (
        Claim(GAINS, "relevance", "original", on),
        Claim("ours does better than GradMask", "relevance", "gradmask", on),
        Claim("ours does better than RRR", "relevance", "rrr", on),
    )


def gains_on_average(rows: Sequence[str], sets: Sequence[str], groups: Sequence[str] = ALL) -> tuple[Claim, ...]:
    """The paper's claim for its own method on real data: it gains on shifted sets."""
    return tuple(
        Claim(
            f"{row} gains on {name}, averaged over the models{GROUPS[group]}", row, "original", name, group, margin=0.0
        )
        for row in rows
        for group in groups
        for name in sets
        if name not in ("imagenet", "imagenet-v2")
    )


def _of_beyond() -> tuple[Claim, ...]:
    without_labels = {arm.name: arm.name.replace("_", " ") for arm in (arms.LABEL_FREE, *arms.BEYOND)}
    losses = {arm.name: without_labels[arm.name] for arm in arms.BEYOND}
    paper, swap = "relevance", "background_swap"
    as_swap = "{}, without labels, does as well as background swap with them"
    others = {swap: "background swap", **losses}
    return (
        *(Claim(f"{words} does better than the paper's loss", name, paper) for name, words in without_labels.items()),
        *(Claim(f"{words} raises accuracy on shifted sets", name) for name, words in without_labels.items()),
        *(Claim(as_swap.format(words), name, swap, expects="same") for name, words in losses.items()),
        *(
            Claim(f"{words} does better than the paper's loss on the classes without samples", name, paper, group="rest")
            for name, words in others.items()
        ),
    )  # fmt: skip


def _of_baselines() -> tuple[Claim, ...]:
    weighted = [arm for several in arms.WEIGHTED.values() for arm in several]
    return (
        Claim("GradMask as released amounts to cross-entropy", "gradmask_as_released", "control", expects="same"),
        Claim("RRR as released amounts to cross-entropy", "rrr_as_released", "control", expects="same"),
        Claim("GradMask with its gradient does better than cross-entropy", "gradmask", "control"),
        Claim("RRR with its gradient does better than cross-entropy", "rrr", "control"),
        *(Claim(f"{arm.method} at this weight does better than cross-entropy", arm.name, "control") for arm in weighted),
        *(Claim(f"ours does better than {arm.method} at this weight", "relevance", arm.name) for arm in weighted),
    )  # fmt: skip


def _of_samples() -> tuple[Claim, ...]:
    def gain(n: int, of: int) -> str:
        return f"{n} sample{'s' if n > 1 else ''} of each of {of} classes raise{'' if n > 1 else 's'} accuracy on shifted sets"

    groups = {"these classes": "set_a", "the other classes": "rest"}
    return (
        *(Claim(gain(n, of), arm.row) for (n, of), arm in arms.BY_SAMPLES.items()),
        *(
            Claim(f"with {n} of each of 10 classes, {who} gain", arm.row, group=group)
            for (n, of), arm in arms.BY_SAMPLES.items()
            if of == 10
            for who, group in groups.items()
        ),
    )


def effects(*sets: str) -> Design:
    """Pages of what the paper's method changed, seed 0."""
    return Design((RELEVANCE,), sets, test=EFFECTS, pictures_per_object=3)


PAPER: dict[str, Experiment] = {
    "table1": Experiment(
        "robustness: ours against other fine-tunings", "Table 1",
        Design(
            (*MAIN, arms.CONTROL_SLOWER), BACKGROUNDS,
            (
                *against_baselines(SHIFTED),
                Claim("ours does better than cross-entropy on the same samples (our question)", "relevance", "control"),
                Claim("ours does better than background swap (our question)", "relevance", "background_swap"),
                Claim("ours does better than cross-entropy at the same rate (our question)", "relevance", arms.CONTROL_SLOWER.name),
                Claim("ours costs a modest drop in distribution", "relevance", "original", "in_distribution", expects="lower"),
                Claim("automatic masks do as well as annotated ones", AUTOMATIC.name, "relevance", expects="same"),
            ),
            figures=R1_R5, seeds=5, pictures_per_object=3, table=1,
        ),
        Design(arms.BASELINES, MAIN_SETS, gains_on_average((OURS.name, OURS_AUTOMATIC.name), MAIN_SETS), figures=R1_R5, table=1, averages=True),
    ),
    "table2": Experiment(
        "robustness to place, rotation and size", "Table 2",
        Design(
            MAIN, PLACES, tuple(claim for on in PLACES for claim in against_baselines(on)),
            figures=R1_R5, seeds=5, pictures_per_object=3, table=2,
        ),
        Design(arms.BASELINES, SI_SCORE, gains_on_average((OURS.name, OURS_AUTOMATIC.name), SI_SCORE), figures=R1_R5, table=2, averages=True),
    ),
    "table3": Experiment(
        "maps as segmentations", "Table 3",
        Design(
            MAIN, ("builtin/in_distribution",),
            tuple(
                Claim(f"ours raises {words} of the maps as segmentation", "relevance", against, "", figure=figure)
                for against in ("original", "control") for figure, words in SEGMENTATION.items()
            ),
            test="segmentation", figures=tuple(SEGMENTATION), seeds=5, limit=200, cost=8,
        ),
        Design((OURS,), (GTSEGS,), test="segmentation", figures=tuple(SEGMENTATION), cost=3.0, table=3),
    ),
    "table4": Experiment(
        "ablation of the loss", "Table 4",
        Design(
            (RELEVANCE, *arms.ABLATIONS), EVERY,
            (
                Claim("without the classification term accuracy falls in distribution", "without_classification", "relevance", "in_distribution", expects="lower"),
                Claim("without the background term robustness is less", "without_background", "relevance", expects="lower"),
                Claim("without the foreground term robustness is less", "without_foreground", "relevance", expects="lower"),
                Claim("the labels in place of confidence do not do better", "with_labels", "relevance", expects="lower"),
                Claim("the background term alone costs accuracy in distribution", "only_background", "original", "in_distribution", expects="lower"),
                Claim("the foreground term alone costs accuracy in distribution", "only_foreground", "original", "in_distribution", expects="lower"),
            ),
            seeds=5,
        ),
        Design(arms.REAL_ABLATION, ALL_SETS, models="base", table=4),
    ),
    "beyond": Experiment(
        "other losses of masks alone, without labels", "not in the paper",
        Design((SWAP, RELEVANCE, arms.LABEL_FREE, *arms.BEYOND), (*EVERY, SHARE), _of_beyond(), groups=EVERY_GROUP, seeds=5),
    ),
    "figure4": Experiment(
        "classes of the training samples against the rest", "Figure 4",
        Design(
            (RELEVANCE, AUTOMATIC), EVERY,
            (
                Claim("classes of the training set gain on shifted sets", "relevance", group="set_a"),
                Claim("so do the others", "relevance", group="rest"),
            ),
            figures=R1_R5, groups=SET_A_REST, seeds=5, pictures_per_object=3,
        ),
        Design(
            (OURS,), ALL_SETS, gains_on_average((OURS.name,), ALL_SETS, SET_A_REST), figures=R1_R5, groups=SET_A_REST,
            models="base", rows=False, averages=True,
            notes=("Average change over the base models, for the classes of the training samples and for the others.",),
        ),
    ),
    "appendix_i": Experiment(
        "classes of the training samples against the rest, every method", "Appendix I",
        Design(
            MAIN, EVERY,
            (
                Claim("classes of the training set gain on shifted sets", "relevance", group="set_a"),
                Claim("so do the others", "relevance", group="rest"),
            ),
            figures=R1_R5, groups=SET_A_REST, seeds=5, pictures_per_object=3,
        ),
        Design(arms.BASELINES, ALL_SETS, figures=R1_R5, groups=SET_A_REST),
    ),
    "figure1": Experiment(
        "where the original looks", "Figure 1",
        effects("background_shuffled"), Design((OURS,), ("imagenet",), test=EFFECTS, models="base"),
    ),
    "figure2": Experiment(
        "unchanged, corrected and ruined", "Figure 2",
        effects("in_distribution"), Design((OURS,), ("imagenet",), test=EFFECTS, models="base"),
    ),
    "figure3": Experiment(
        "corrected on shifted sets", "Figure 3",
        effects("background_shuffled", "background_unseen", *("location", "size", "rotation")),
        Design((OURS,), ("imagenet-a", "imagenet-r", "objectnet"), test=EFFECTS, models="base"),
    ),
    "appendix_g": Experiment(
        "more pictures", "Appendix G",
        effects("background_unseen", "foreground_only"), Design((OURS,), MAIN_SETS, test=EFFECTS),
    ),
    "appendix_e": Experiment(
        "small changes of the learning rate", "Appendix E",
        Design(
            (RELEVANCE, *arms.NEAR_RATES), EVERY,
            tuple(
                Claim(f"a learning rate {arm.factor:g} times as high matters little", arm.name, "relevance", expects="same")
                for arm in arms.NEAR_RATES
            ),
            seeds=3,
        ),
        Design((OURS, *arms.REAL_RATES, *arms.LAMBDAS), ALL_SETS, models="first"),
    ),
    "appendix_n": Experiment(
        "perturbation of pixels by relevance", "Appendix N",
        Design(
            (RELEVANCE, CONTROL, SWAP), ("builtin/in_distribution",),
            (
                Claim(
                    "maps stay as faithful: the gap between removing little and much relevance", "relevance", "original", "",
                    figure="auc_contrast_predicted",
                ),
            ),
            test="perturbation", figures=("accuracy", "auc_positive_predicted", "auc_negative_predicted", "auc_contrast_predicted"),
            seeds=3, limit=100, options={"random": "none", "targets": ["predicted"]}, cost=8,
        ),
        Design(
            (OURS,), ("imagenet",), test="perturbation", models="base", limit=5000, cost=40.0,
            figures=("accuracy", "auc_positive_predicted", "auc_negative_predicted", "auc_positive_label", "auc_negative_label"),
        ),
    ),
    "appendix_m": Experiment(
        "nearest neighbours on frozen features", "Appendix M",
        Design(
            (RELEVANCE, CONTROL, SWAP), ("builtin/background_shuffled",),
            (Claim("ours improves the features for nearest neighbours", "relevance", "original", ""),),
            test="knn", figures=R1_R5, seeds=3, limit=400, train="builtin/train", cost=9,
        ),
        Design((OURS, OURS_AUTOMATIC), (NEIGHBOURS,), test="knn", figures=R1_R5, models="base", cost=1.0),
    ),
    "interpolation": Experiment(
        "between the original and the fine-tuned model", "not in the paper",
        Design(
            (RELEVANCE, CONTROL, SWAP), EVERY,
            (
                Claim("half-way there is as good on shifted sets as all the way", "relevance_50%", "relevance", expects="same"),
                Claim("half-way there is better than the original", "relevance_50%"),
                Claim("half-way to cross-entropy is better than all the way", "control_50%", "control"),
                Claim("half-way to background swap is better than the original", "background_swap_50%"),
                Claim("half-way to background swap costs nothing in distribution", "background_swap_50%", "original", "in_distribution", expects="same"),
            ),
            seeds=3, shares=(0.25, 0.5, 0.75),
        ),
    ),
    "appendix_f": Experiment(
        "seeds and choices of classes", "Appendix F",
        Design(
            (RELEVANCE, AUTOMATIC, arms.OTHER_CLASSES), EVERY,
            (
                Claim("over seeds, ours raises accuracy on shifted sets", "relevance"),
                Claim("over choices of classes, ours raises accuracy on shifted sets", arms.OTHER_CLASSES.name),
                Claim("another choice of classes changes little", arms.OTHER_CLASSES.name, "relevance", expects="same"),
            ),
            seeds=5,
        ),
        Design((*arms.OTHER_SEEDS, *arms.OTHER_CHOICES), ALL_SETS, models="base"),
    ),
    "appendix_j": Experiment(
        "other explainers as the training signal", "Appendix J",
        Design(
            (RELEVANCE, *arms.BY_EXPLAINERS), (*EVERY, SHARE),
            tuple(
                Claim(f"GAE trains better than {arm.explainer.replace('_', ' ')}", "relevance", arm.name)
                for arm in arms.BY_EXPLAINERS
            ),
            seeds=3,
        ),
        Design((*arms.REAL_ABLATION, *arms.REAL_EXPLAINERS), ALL_SETS, figures=R1_R5, models="first", table=4),
    ),
    "appendix_h": Experiment(
        "samples per class and number of classes", "Appendix H",
        Design(tuple(arms.BY_SAMPLES.values()), EVERY, _of_samples(), groups=EVERY_GROUP, seeds=3),
        Design(arms.REAL_BY_SAMPLES, ALL_SETS, models="first"),
    ),
    "appendix_d": Experiment(
        "the baselines as released and as written", "Appendix D",
        Design(
            (
                RELEVANCE, CONTROL, arms.AS_RELEASED[0], arms.GRADMASK, *arms.WEIGHTED["gradmask"],
                arms.AS_RELEASED[1], arms.RRR, *arms.WEIGHTED["rrr"],
            ),
            EVERY, _of_baselines(), seeds=3,
            notes=(
                "The paper tuned the weights of GradMask and RRR for each model and gives no values. On the first batch here "
                "GradMask's term is hundreds of times smaller than cross-entropy, RRR's thousands of times larger: so the grid "
                "goes up from the usual weight (0.8) for one and down for the other. Each weight has a rate of its own by the "
                "rule; no weight was chosen by any figure.",
            ),
        ),
        Design(
            (arms.REAL_GRADMASK, arms.REAL_RRR, *arms.REAL_AS_RELEASED, arms.CROSS_ENTROPY, arms.REAL_SWAP), ALL_SETS, models="first",
        ),
    ),
    "appendix_a": Experiment(
        "sufficient input subsets", "Appendix A",
        Design(
            (RELEVANCE,), ("builtin/in_distribution",),
            (
                Claim(
                    "subsets of few pixels are found for classes that are not in the picture", "relevance", "original", "",
                    expects="same", margin=10.0, figure="found_other",
                ),
            ),
            test="sufficient_subsets", figures=("share_predicted", "found_predicted", "share_other", "found_other"),
            seeds=2, limit=24, cost=25,
        ),
        Design(
            (OURS,), ("imagenet",), test="sufficient_subsets", models="first", limit=500, cost=600.0,
            figures=("share_predicted", "share_other", "found_predicted", "found_other"),
        ),
    ),
    "appendix_l": Experiment(
        "self-supervised backbones with a linear head", "Appendix L",
        Design(
            arms.HEADED, EVERY,
            (
                Claim("ours raises accuracy on shifted sets after a linear probe", arms.HEADED[0].name),
                Claim("so it does with automatic masks", arms.HEADED[1].name),
                Claim("ours does better than cross-entropy after a linear probe", arms.HEADED[0].name, arms.HEADED[2].name),
            ),
            seeds=3,
            notes=(
                "The original is here the built-in backbone with a new head, a linear probe of its frozen features. That backbone was "
                "trained with labels: this shows that the path works; the claim about self-supervised backbones needs --data ROOT.",
            ),
        ),
        Design((replace(OURS, published=None), replace(OURS_AUTOMATIC, published=None)), ALL_SETS, models="self_supervised"),
    ),
    "appendix_k": Experiment(
        "what changes by class", "Appendix K",
        Design(
            (RELEVANCE,), ("in_distribution", "background_shuffled", "background_unseen"),
            groups=(EACH_CLASS,), seeds=5, pictures_per_object=3,
        ),
        Design((OURS,), ("imagenet", "imagenet-a", "imagenet-r", "imagenet-sketch"), test=EFFECTS, models="first"),
    ),
}  # fmt: skip
for _n, _arms in arms.DEMO.items():
    PAPER[f"demo{_n}"] = Experiment(
        f"relevit demo --full, {_n} samples a class",
        "not in the paper",
        Design(_arms, (*EVERY[:-1], SHARE), groups=EVERY_GROUP, seeds=5, pictures_per_object=3),
        apart=True,
    )
