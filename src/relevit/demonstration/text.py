"""What the demo's report says: the verdict, made from the figures, and the definitions."""

from __future__ import annotations

from relevit.data.builtin.digits import RELIABILITY
from relevit.report.results import Results
from relevit.report.words import readable, signed

LEAD = "relevance+background_swap"  # the recipe that the demo leads with

DEFINITIONS = {
    "original": "the model as it was pretrained, misled by the shortcut",
    "relevance": "the paper's loss (Eq. 5): relevance off the background, onto the object; labels only pick a map",
    "control": "plain cross-entropy with the labels, on the same samples and steps",
    "background_swap": "cross-entropy with the labels, half of the time with the object on another sample's background",
    "relevance+background_swap": "the paper's relevance terms together with background swap and the labels",
    "relevance_with_automatic_masks": "relevance with masks found without annotation in place of the exact ones",
    "in_distribution": f"as in training: in {RELIABILITY:.0%} of the pictures the object is before its class's habitat",
    "background_shuffled": "the habitat of another class",
    "background_unseen": "families of textures that were never used in training",
    "location": "at the border of the picture, up to a fifth cut off, on any texture of the seen families",
    "size": "from a quarter of the picture to all of it, on any texture of the seen families",
    "rotation": "turned by up to 30 degrees either way, on any texture of the seen families",
    "foreground_only": "on flat grey",
}

_ORDER = "The test set in an order shuffled once; the first four, no class twice while there are others."
RULES = {
    "corrected": f"Wrong before, right after. {_ORDER}",
    "unchanged": f"The same prediction before and after. {_ORDER}",
    "ruined": f"Right before, wrong after. {_ORDER}",
}

NOTES = [
    "The test objects (digits of scikit-learn's load_digits, split once, and shapes from their own random streams) "
    "are never trained on. Learning rates follow the paper's rule on validation samples of held-out classes: the "
    "highest rate at which accuracy falls by at most 2.5 points and the classification loss does not rise. Here it rises "
    "at every rate of the grid, with every method, so accuracy decides alone; with background swap and 20 samples a class "
    "even the lowest rate costs more than that, and is taken. No choice looks at a test set. Every method's last epoch is "
    "measured: a choice by the validation loss would stop those early that are trained with labels.",
    "Relevance on the foreground is the share of a map's relevance (predicted class) that lies on the object, on "
    "in-distribution test pictures. A better map is not by itself better behaviour: the table shows both.",
    "Small synthetic pictures and a small model: the figures show how the methods compare here, not what they do on "
    "ImageNet.",
]


def verdict(results: Results) -> list[str]:
    """Two or three plain sentences, from the figures alone."""
    shuffled, usual = "background_shuffled", "in_distribution"
    start = results.values["original"]
    lines = [
        f"The original model is right on {start[usual].value:.1f}% of pictures like those it was trained on, and on "
        f"{start[shuffled].value:.1f}% when the object stands before another class's background."
    ]

    def change(model: str, name: str) -> str:
        found = results.difference(model, name)
        assert found is not None
        return signed(found[0]) + " points" + (", not settled" if found[1] == "open" else "")

    lines.append(
        f"After fine-tuning with {readable(LEAD)}: {results.values[LEAD][shuffled].value:.1f}% "
        f"({change(LEAD, shuffled)}) with the background shuffled, {results.values[LEAD][usual].value:.1f}% "
        f"({change(LEAD, usual)}) in distribution."
    )
    others = [m for m in results.models if m not in ("original", LEAD)]
    listed = ", ".join(f"{readable(m)} {results.values[m][shuffled].value:.1f}%" for m in others)
    best = max(results.models, key=lambda m: results.values[m][shuffled].value)
    lines.append(f"Beside it, with the background shuffled: {listed}; the best is {readable(best)}.")
    share = results.foreground_share
    if "original" in share and "relevance" in share:
        lines.append(
            f"The share of relevance on the object is {share['original'].value:.0f}% before, "
            f"{share['relevance'].value:.0f}% after relevance alone and {share[LEAD].value:.0f}% after {readable(LEAD)}."
        )
    return lines
