"""The ways to fine-tune the built-in model that the experiments compare."""

from __future__ import annotations

from dataclasses import replace

from relevit.experiments.cells import FEWER_RATES, Arm, with_samples

# The first ones are measured on three pictures of each test object, the others on one.
RELEVANCE = Arm("relevance", "relevance", views=3)
AUTOMATIC = Arm("relevance_with_automatic_masks", "relevance", masks="automatic", rate_of=RELEVANCE, views=3)
CONTROL = Arm("control", "control", views=3, cost=0.7)
CONTROL_SLOWER = replace(CONTROL, name="control_at_the_rate_of_relevance", rate_of=RELEVANCE)
SWAP = Arm("background_swap", "background_swap", views=3, cost=0.7)
BOTH = Arm("relevance+background_swap", "relevance+background_swap", views=3)
GRADMASK = Arm("gradmask", "gradmask", views=3, cost=1.6)
RRR = Arm("rrr", "rrr", views=3, cost=1.6)
WEIGHTS = {"gradmask": (100.0, 1e3, 1e4), "rrr": (1e-2, 1e-3, 1e-4)}  # times the usual weight of the gradient's term
WEIGHTED = {
    method: tuple(
        Arm(f"{method}_weight_x{factor:g}", method, cost=1.6, options={"lambda_relevance": float(f"{0.8 * factor:g}")})
        for factor in factors
    )
    for method, factors in WEIGHTS.items()
}
AS_RELEASED = tuple(Arm(f"{name}_as_released", f"{name}_as_released", cost=1.3) for name in ("gradmask", "rrr"))
ABLATIONS = tuple(
    Arm(name, name)
    for name in (
        "without_classification",
        "without_background",
        "without_foreground",
        "with_labels",
        "only_background",
        "only_foreground",
    )
)
LABEL_FREE = Arm("relevance_label_free", "relevance_label_free")
SHARE = Arm("relevance_share", "relevance_share", cost=2.0)
CONSISTENCY = Arm("consistency", "consistency", cost=1.5)
DISTILLATION = Arm("distillation", "distillation", cost=1.7)
BEYOND = (SHARE, CONSISTENCY, DISTILLATION)
SECOND_ORDER = ("input_x_gradient", "attn_lrp")  # explainers whose maps train by second-order gradients alone
EXPLAINERS = tuple(
    Arm(
        f"relevance_by_{name}",
        "relevance",
        explainer=name,
        options={"second_order": True} if name in SECOND_ORDER else {},
        cost=2.0 if name in SECOND_ORDER else 1.0,
        rates=FEWER_RATES,
    )
    for name in ("raw_attention", "rollout", "attention_gradcam", "gradient_rollout", "input_x_gradient", "attn_lrp")
)
FACTORS = (0.5, 0.8, 1.25, 2.0)
NEAR_RATES = tuple(
    replace(RELEVANCE, name=f"relevance_rate_x{factor:g}", rate_of=RELEVANCE, factor=factor, views=1)
    for factor in FACTORS
)
OTHER_CLASSES = replace(RELEVANCE, name="relevance_other_classes", rate_of=RELEVANCE, draws=True, views=1)
SAMPLES, CLASSES = (1, 3, 10, 20), (5, 10)
_HEADED = Arm("relevance_from_linear_head", "relevance", start="linear-head")
HEADED = (
    _HEADED,
    replace(_HEADED, name="relevance_with_automatic_masks_from_linear_head", masks="automatic", rate_of=_HEADED),
    Arm("control_from_linear_head", "control", start="linear-head", cost=0.7),
)
BY_SAMPLES = tuple(
    RELEVANCE if (n, of) == (3, 10) else with_samples(RELEVANCE, n, of) for of in CLASSES for n in SAMPLES
)
MAIN = (GRADMASK, RRR, CONTROL, SWAP, RELEVANCE, AUTOMATIC)
