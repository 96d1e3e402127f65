"""The paper's experiments on real data, declared; details of the appendices, which are not part of the published text, are our choice."""

from __future__ import annotations

from dataclasses import replace

from relevit.experiments.filled import Plan
from relevit.experiments.real.measured_tables import MeasurementPlan
from relevit.experiments.real.pages import EffectsPlan
from relevit.experiments.real.places import GTSEGS, NEIGHBOURS
from relevit.experiments.real.tables import MAIN, SI_SCORE, AccuracyPlan
from relevit.experiments.real.variants import Variant

OURS = Variant("ours", published=("ours", "annotated"))
AUTOMATIC = Variant("ours, automatic masks", masks="automatic", published=("ours", "tokencut"))
GRADMASK = Variant("gradmask", "gradmask", published=("gradmask", "annotated"))
RRR = Variant("rrr", "rrr", published=("rrr", "annotated"))
CONTROL = Variant("cross-entropy", "control")
SWAP = Variant("background swap", "background_swap")
BASELINES = (GRADMASK, RRR, OURS, AUTOMATIC)
ABLATION = (
    replace(OURS, published=("ours", "annotated")),
    Variant("without classification", "without_classification", published=("without-classification", "annotated")),
    Variant("without background", "without_background", published=("without-background", "annotated")),
    Variant("without foreground", "without_foreground", published=("without-foreground", "annotated")),
    Variant("with ground truth", "with_labels", published=("ground-truth-classification", "annotated")),
    Variant("only background", "only_background", published=("only-background", "annotated")),
    Variant("only foreground", "only_foreground", published=("only-foreground", "annotated")),
)
SEEDS, CHOICES = range(3), range(3)
OTHER_SEEDS = tuple(Variant(f"ours, samples {s}", sample_seed=s, seed=s) for s in SEEDS)
OTHER_CLASSES = tuple(Variant(f"ours, classes {c}", class_seed=c) for c in CHOICES)
RATES = tuple(Variant(f"ours, rate x{factor:g}", factor=factor) for factor in (0.5, 0.8, 1.25, 2.0))
LAMBDAS = tuple(
    Variant(f"ours, background {bg:g}, foreground {fg:g}", options={"lambda_bg": bg, "lambda_fg": fg})
    for bg in (1.0, 2.0, 4.0)
    for fg in (0.1, 0.3, 1.0)
    if (bg, fg) != (2.0, 0.3)
)
EXPLAINERS = tuple(
    Variant(
        f"ours by {name}",
        explainer=name,
        options={"second_order": True} if name in ("input_x_gradient", "attn_lrp") else {},
    )
    for name in ("raw_attention", "rollout", "attention_gradcam", "gradient_rollout", "input_x_gradient", "attn_lrp")
)
AS_RELEASED = tuple(Variant(f"{name} as released", f"{name}_as_released") for name in ("gradmask", "rrr"))
ALL = (*MAIN, *SI_SCORE)


def by_samples(share: dict[int, str]) -> tuple[Variant, ...]:
    """Numbers of samples a class, for numbers of classes."""
    return tuple(
        OURS if (n, classes) == (3, 500) else Variant(f"{n} of each of {classes} classes", per_class=n, classes=classes)
        for classes in share
        for n in (1, 3, 5, 10)
    )


REAL: dict[str, Plan] = {
    "table1": AccuracyPlan(BASELINES, figures=("r1", "r5"), table=1, averages=True),
    "table2": AccuracyPlan(BASELINES, SI_SCORE, figures=("r1", "r5"), table=2, averages=True),
    "table3": MeasurementPlan("segmentation", GTSEGS, ("pixel_accuracy", "miou", "map"), (OURS,), table=3),
    "table4": AccuracyPlan(ABLATION, ALL, models="base", table=4),
    "figure1": EffectsPlan(OURS, ("imagenet",)),
    "figure2": EffectsPlan(OURS, ("imagenet",)),
    "figure3": EffectsPlan(OURS, ("imagenet-a", "imagenet-r", "objectnet")),
    "figure4": AccuracyPlan(
        (OURS,), ALL, ("r1", "r5"), ("set_a", "rest"), models="base", rows=False, averages=True,
        notes=("Average change over the base models, for the classes of the training samples and for the others.",),
    ),
    "appendix_a": MeasurementPlan(
        "sufficient_subsets", "imagenet", ("share_predicted", "share_other", "found_predicted", "found_other"), (OURS,),
        models="first", limit=500, cost=600.0,
    ),
    "appendix_d": AccuracyPlan((GRADMASK, RRR, *AS_RELEASED, CONTROL, SWAP), ALL, models="first"),
    "appendix_e": AccuracyPlan((OURS, *RATES, *LAMBDAS), ALL, models="first"),
    "appendix_f": AccuracyPlan(
        (*OTHER_SEEDS, *OTHER_CLASSES), ALL, models="base",
        spread={
            "ours, over samples and seeds": tuple(each.name for each in OTHER_SEEDS),
            "ours, over choices of classes": tuple(each.name for each in OTHER_CLASSES),
        },
    ),
    "appendix_g": EffectsPlan(OURS, MAIN, models="all"),
    "appendix_h": AccuracyPlan(by_samples(dict.fromkeys((100, 250, 500, 700), "")), ALL, models="first"),
    "appendix_i": AccuracyPlan(BASELINES, ALL, ("r1", "r5"), ("set_a", "rest")),
    "appendix_j": AccuracyPlan((*ABLATION, *EXPLAINERS), ALL, ("r1", "r5"), models="first", table=4),
    "appendix_k": EffectsPlan(OURS, ("imagenet", "imagenet-a", "imagenet-r", "imagenet-sketch"), models="first"),
    "appendix_l": AccuracyPlan((replace(OURS, published=None), replace(AUTOMATIC, published=None)), ALL, models="self_supervised"),
    "appendix_m": MeasurementPlan("knn", NEIGHBOURS, ("r1", "r5"), (OURS, AUTOMATIC), models="base", cost=1.0),
    "appendix_n": MeasurementPlan(
        "perturbation", "imagenet",
        ("accuracy", "auc_positive_predicted", "auc_negative_predicted", "auc_positive_label", "auc_negative_label"),
        (OURS,), models="base", limit=5000, cost=40.0,
    ),
}  # fmt: skip
