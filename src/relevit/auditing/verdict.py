"""The verdict of an audit: a rule that is stated once, and sentences with the figures that it rests on.

What is judged is behaviour, with the object in the picture: does the answer to it change with the class of the background?
Each object is put on a background of its own class and on one of another class. Both pictures are pasted alike, so that
edges, fillings and a light that does not fit weigh on both; the difference is due to what the background shows. Where too
few classes have two pictures for that, the rule takes the share of answers that name the class of the exchanged
background, above chance: which class that is was drawn at random, so that nothing but looking at it can raise that share.

Two figures do not decide: the share of relevance on the background, since a map may lie there although the answers do not
follow it (and the other way round); and the right class named from the background alone, since a classifier that is asked
about a picture without an object may well go by the rest, and would still go by the object where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from relevit.auditing.figures import ModelFigures
from relevit.report.words import number, signed
from relevit.statistics.estimate import Estimate

# One object in a hundred: a smaller effect, which many pictures make measurable, misleads hardly anyone.
MATTERS = 1.0  # points
# One object in twenty: an effect that a user meets every day. Only where the interval excludes it, the verdict reassures.
WORRIES = 5.0  # points
# The own class's background can be had for at least this share of the pictures, or they would stand for few classes.
ENOUGH = 0.5

Outcome = Literal["misled", "slightly misled", "not misled", "open"]
RULE = (
    f"Misled: the interval of the effect lies above 0, and the effect is at least {MATTERS:g} point (one object in a hundred). "
    f"Slightly misled: it lies above 0, and the effect is smaller. Not misled: it contains 0 or lies below, and ends below "
    f"{WORRIES:g} points (one object in twenty). Open: it contains 0 and {WORRIES:g} points or more. The effect is the accuracy "
    "on backgrounds of the object's own class minus that on another class's, the same objects pasted alike; where fewer than half "
    "of the pictures have another one of their class, the share of answers that name the exchanged background's class, above "
    "chance. The share of relevance on the background and the answers to the background alone are shown beside it and do not decide."
)


def judge(effect: Estimate) -> Outcome:
    """The rule, on an effect in percentage points with its 95% interval."""
    if effect.low > 0:
        return "misled" if effect.value >= MATTERS else "slightly misled"
    return "not misled" if effect.high < WORRIES else "open"


def by_contrast(found: ModelFigures, pictures: int) -> bool:
    """Whether the rule is about the contrast of own and other backgrounds; else about the pull."""
    return found.contrast is not None and found.contrast.difference.count >= ENOUGH * pictures


def effect_of(found: ModelFigures, pictures: int) -> Estimate:
    """What the rule judges."""
    if found.contrast is not None and by_contrast(found, pictures):
        return found.contrast.difference
    return found.pull.difference


CLASSIFIER = "the classifier"  # what a model is called that is alone
OPENINGS: dict[Outcome, str] = {
    "misled": "{name} is misled by backgrounds",
    "slightly misled": "{name} is misled by backgrounds, but in fewer than one picture in a hundred",
    "not misled": "{name} is not misled by backgrounds, as far as these pictures tell",
    "open": "Whether {name} is misled by backgrounds is open, these pictures are too few to tell",
}


def sentences(name: str, found: ModelFigures, objects: int, *, predicted: bool = False) -> list[str]:
    """Two plain sentences: whether the background misleads, and how much of it the model reads.

    objects: how many different ones there are. predicted: classes are the first model's answers, not given ones.
    """
    effect = effect_of(found, objects)
    right = "gives the same answer" if predicted else "is right"
    opening = OPENINGS[judge(effect)].format(name=name)
    opening = opening[0].upper() + opening[1:] if name == CLASSIFIER else opening
    if found.contrast is not None and by_contrast(found, objects):
        where = found.contrast
        first = (
            f"{opening}: with a background of another class behind the same {effect.count:,} objects it {right} in "
            f"{where.other:.1f}%, with one of their own class in {where.own:.1f}%, {_fall(effect)}; as they are, in "
            f"{where.original:.1f}%."
        )
    else:
        first = (
            f"{opening}: with a background of another class behind the object it names that class in {found.pull.rate:.1f}% of "
            f"{effect.count:,} objects, where {found.pull.chance:.1f}% would be chance, {signed(effect.value)} points "
            f"({_interval(effect)})."
        )
    alone = found.alone
    reads = (
        f"from the background alone, the object removed, it names the right class in {alone.rate:.1f}% of the pictures, where "
        f"{alone.chance:.1f}% would be chance"
    )
    if found.share is None:
        return [first, f"{reads[0].upper()}{reads[1:]}; it has no relevance maps that could tell where it looks."]
    return [
        first,
        f"{found.share.value:.1f}% of its relevance lies on the background (95% interval {found.share.low:.1f} to "
        f"{found.share.high:.1f}), where a map that prefers nothing would have {found.area.value:.1f}%, its share of the area; {reads}.",
    ]


def change_sentence(name: str, first: str, change: Estimate, accuracy: Estimate) -> str:
    """A third sentence on another model: what became of the effect against the first model's, and of the accuracy.

    change: the effect of this model minus the first one's, paired. accuracy: on the pictures as they are, likewise.
    """
    if change.high < 0:
        text = f"less misled than {first}: the effect of the background is smaller by {-change.value:.1f} points"
        change = change.turned()
    elif change.low > 0:
        text = f"more misled than {first}: the effect of the background is larger by {change.value:.1f} points"
    else:
        text = f"neither less nor more misled than {first} as far as these pictures tell: the effect differs by {signed(change.value)} points"
    return (
        f"{name} is {text} ({_interval(change)}); on the pictures as they are its accuracy differs by {signed(accuracy.value)} points "
        f"({_interval(accuracy)})."
    )


def _fall(effect: Estimate) -> str:
    word = "a fall" if effect.value >= 0 else "a rise"
    points = abs(effect.value)
    ends: Sequence[float] = (effect.low, effect.high) if effect.value >= 0 else (-effect.high, -effect.low)
    return f"{word} of {points:.1f} points (95% interval {number(ends[0])} to {number(ends[1])})"


def _interval(difference: Estimate) -> str:
    return f"95% interval {number(difference.low)} to {number(difference.high)}"
