"""The ways to fine-tune a model that the experiments compare, on the built-in benchmark and on real data."""

from __future__ import annotations

from dataclasses import replace

from relevit.experiments.experiment import FEWER_RATES, RATES, Arm

SECOND_ORDER = ("input_x_gradient", "attn_lrp")  # explainers whose maps train by second-order gradients alone
EXPLAINERS = ("raw_attention", "rollout", "attention_gradcam", "gradient_rollout", *SECOND_ORDER)
FACTORS = (0.5, 0.8, 1.25, 2.0)  # times the learning rate
ABLATED = (
    "without_classification",
    "without_background",
    "without_foreground",
    "with_labels",
    "only_background",
    "only_foreground",
)


def by_explainers(arm: Arm, name: str) -> tuple[Arm, ...]:
    """The same arm with the maps of every other explainer that can train; `name`: of each, with {} for the explainer's."""
    return tuple(
        replace(
            arm,
            name=name.format(explainer),
            explainer=explainer,
            options={"second_order": True} if explainer in SECOND_ORDER else {},
            cost=2.0 if explainer in SECOND_ORDER else 1.0,
            rates=FEWER_RATES,
            published=None,
        )
        for explainer in EXPLAINERS
    )


def at_rates(arm: Arm, name: str) -> tuple[Arm, ...]:
    """The same arm at rates near its own; `name`: of each, with {} for the factor."""
    return tuple(
        replace(arm, name=name.format(f"{factor:g}"), rate_of=arm, factor=factor, pictures_per_object=1, published=None)
        for factor in FACTORS
    )


def with_samples(arm: Arm, per_class: int, classes: int | None = None) -> Arm:
    """The same arm at another number of samples, with a smaller grid of rates; at fewer classes it takes the rate of all."""
    rates = arm.rates if per_class == arm.per_class else FEWER_RATES
    whole = replace(arm, per_class=per_class, pictures_per_object=1, rates=rates)
    if classes is not None:
        whole = replace(whole, classes=classes, rate_of=whole)
    return replace(whole, together=whole.label)


# On the built-in benchmark. The first ones are measured on three pictures of each test object, the others on one.
RELEVANCE = Arm("relevance", pictures_per_object=3)
AUTOMATIC = Arm("relevance_with_automatic_masks", masks="automatic", rate_of=RELEVANCE, pictures_per_object=3)
CONTROL = Arm("control", "control", pictures_per_object=3, cost=0.7)
CONTROL_SLOWER = replace(CONTROL, name="control_at_the_rate_of_relevance", rate_of=RELEVANCE)
SWAP = Arm("background_swap", "background_swap", pictures_per_object=3, cost=0.7)
BOTH = Arm("relevance+background_swap", "relevance+background_swap", pictures_per_object=3)
GRADMASK = Arm("gradmask", "gradmask", pictures_per_object=3, cost=1.6)
RRR = Arm("rrr", "rrr", pictures_per_object=3, cost=1.6)
MAIN = (GRADMASK, RRR, CONTROL, SWAP, RELEVANCE, AUTOMATIC)
WEIGHTS = {"gradmask": (100.0, 1e3, 1e4), "rrr": (1e-2, 1e-3, 1e-4)}  # times the usual weight of the gradient's term
WEIGHTED = {
    method: tuple(
        Arm(f"{method}_weight_x{factor:g}", method, cost=1.6, options={"lambda_relevance": float(f"{0.8 * factor:g}")})
        for factor in factors
    )
    for method, factors in WEIGHTS.items()
}
AS_RELEASED = tuple(Arm(f"{name}_as_released", f"{name}_as_released", cost=1.3) for name in ("gradmask", "rrr"))
ABLATIONS = tuple(Arm(name, name) for name in ABLATED)
LABEL_FREE = Arm("relevance_label_free", "relevance_label_free")
BEYOND = (
    Arm("relevance_share", "relevance_share", cost=2.0),
    Arm("consistency", "consistency", cost=1.5),
    Arm("distillation", "distillation", cost=1.7),
)
BY_EXPLAINERS = by_explainers(replace(RELEVANCE, pictures_per_object=1), "relevance_by_{}")
NEAR_RATES = at_rates(RELEVANCE, "relevance_rate_x{}")
OTHER_CLASSES = replace(
    RELEVANCE, name="relevance_other_classes", rate_of=RELEVANCE, class_seed="run", pictures_per_object=1
)
SAMPLES, CLASSES = (1, 3, 10, 20), (5, 10)
BY_SAMPLES = {
    (n, of): RELEVANCE if (n, of) == (3, 10) else with_samples(RELEVANCE, n, None if of == 10 else of)
    for of in CLASSES
    for n in SAMPLES
}
_HEADED = Arm("relevance_from_linear_head", start="linear-head")
HEADED = (
    _HEADED,
    replace(_HEADED, name="relevance_with_automatic_masks_from_linear_head", masks="automatic", rate_of=_HEADED),
    Arm("control_from_linear_head", "control", start="linear-head", cost=0.7),
)


def _of_demo(per_class: int) -> tuple[Arm, ...]:
    """At these rates the figures of `relevit demo --full` in benchmarks/RESULTS.md were made."""
    whole = {arm.name: replace(arm, per_class=per_class, rates=RATES[1:]) for arm in (RELEVANCE, CONTROL, SWAP, BOTH)}
    automatic = replace(AUTOMATIC, per_class=per_class, rate_of=whole[RELEVANCE.name])
    return *whole.values(), automatic


DEMO = {per_class: _of_demo(per_class) for per_class in (3, 20)}

# On real data.
OURS = Arm("ours", published=("ours", "annotated"))
OURS_AUTOMATIC = Arm("ours, automatic masks", masks="automatic", published=("ours", "tokencut"))
REAL_GRADMASK = Arm("gradmask", "gradmask", published=("gradmask", "annotated"))
REAL_RRR = Arm("rrr", "rrr", published=("rrr", "annotated"))
CROSS_ENTROPY = Arm("cross-entropy", "control")
REAL_SWAP = Arm("background swap", "background_swap")
BASELINES = (REAL_GRADMASK, REAL_RRR, OURS, OURS_AUTOMATIC)
_NAMED = {"with_labels": ("with ground truth", "ground-truth-classification")}  # in tables, and in the paper's
REAL_ABLATION = (
    OURS,
    *(
        Arm(name, method, published=(variant, "annotated"))
        for method in ABLATED
        for name, variant in [_NAMED.get(method, (method.replace("_", " "), method.replace("_", "-")))]
    ),
)
OTHER_SEEDS = tuple(
    Arm(f"ours, samples {seed}", sample_seed=seed, seed=seed, together="ours, over samples and seeds")
    for seed in range(3)
)
OTHER_CHOICES = tuple(
    Arm(f"ours, classes {choice}", class_seed=choice, together="ours, over choices of classes") for choice in range(3)
)
REAL_RATES = at_rates(OURS, "ours, rate x{}")
LAMBDAS = tuple(
    Arm(f"ours, background {background:g}, foreground {foreground:g}", options={"lambda_bg": background, "lambda_fg": foreground})
    for background in (1.0, 2.0, 4.0)
    for foreground in (0.1, 0.3, 1.0)
    if (background, foreground) != (2.0, 0.3)
)  # fmt: skip
REAL_EXPLAINERS = by_explainers(OURS, "ours by {}")
REAL_AS_RELEASED = tuple(Arm(f"{name} as released", f"{name}_as_released") for name in ("gradmask", "rrr"))
REAL_BY_SAMPLES = tuple(
    OURS if (n, classes) == (3, 500) else Arm(f"{n} of each of {classes} classes", per_class=n, classes=classes)
    for classes in (100, 250, 500, 700)
    for n in (1, 3, 5, 10)
)  # fmt: skip
