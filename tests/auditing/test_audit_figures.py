"""An audit's figures on answers made by hand, and the rule of the verdict at its borders."""

from __future__ import annotations

import numpy as np
import pytest

from relevit.auditing.conditions import ALONE, CONDITIONS, ORIGINAL, OTHER, OWN, Donors
from relevit.auditing.figures import background_alone, figures, pull
from relevit.auditing.measure import Observed
from relevit.auditing.verdict import MATTERS, WORRIES, by_contrast, change_sentence, judge, sentences
from relevit.statistics.estimate import Estimate

TARGETS = np.array([0, 0, 0, 1, 1, 2, 2])
CLASSES = [f"class {label}" for label in TARGETS]
DONORS = Donors(np.array([1, 2, 0, 4, 3, 6, -1]), np.array([3, 5, 4, 0, 5, 1, 3]))
ANSWERS = {
    ORIGINAL: [0, 0, 0, 1, 1, 2, 0],
    OWN: [0, 0, 0, 1, 2, 2, -1],
    OTHER: [1, 2, 0, 1, 2, 9, 2],
    ALONE: [0, 1, 0, 1, 9, 0, 0],
    "background_blurred": [0] * 7,
    "background_removed": [0, 0, 0, 1, 1, 2, 2],
}


def observed(**changed: list[int]) -> Observed:
    answers = {key: np.array(values) for key, values in {**ANSWERS, **changed}.items()}
    possible = {key: np.ones(7, bool) for key in CONDITIONS}
    possible[OWN][6] = False
    share = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, np.nan])
    confidence = {key: np.full(7, 0.5) for key in CONDITIONS}
    return Observed(answers, confidence, possible, share, np.full(7, 0.75))


def test_by_hand() -> None:
    found = figures(observed(), TARGETS, CLASSES, DONORS)
    assert found.accuracy[ORIGINAL].r1 == pytest.approx(100 * 6 / 7)
    assert len(found.accuracy[OWN]) == 6 and found.accuracy[OWN].r1 == pytest.approx(100 * 5 / 6)
    assert found.accuracy[OTHER].r1 == pytest.approx(100 * 3 / 7)
    # of the six with both: own 1 1 1 1 0 1, other 0 0 1 1 0 0
    assert found.contrast is not None and found.contrast.difference.count == 6
    assert found.contrast.difference.value == pytest.approx(50)
    assert (found.contrast.own, found.contrast.other, found.contrast.original) == pytest.approx((500 / 6, 200 / 6, 100))
    assert found.falls["background_blurred"].value == pytest.approx(100 * (6 - 3) / 7)
    assert found.falls["background_removed"].value == pytest.approx(100 * (6 - 7) / 7)
    # the backgrounds' classes: 1 2 1 0 2 0 1; named by the answers 1, 2 and 2 to pictures 0, 1 and 4
    assert found.pull.rate == pytest.approx(100 * 3 / 7)
    assert found.pull.chance == pytest.approx(
        100 * (3 / 2) / 7
    )  # three wrong ones among the known classes, two classes each
    assert found.share is not None and found.share.value == pytest.approx(35) and found.flat == 1
    assert found.more is not None and found.more.value == pytest.approx(35 - 75)
    assert found.area.value == pytest.approx(75)
    assert found.area.low < 75 < found.area.high  # of pictures that all have the same share, too


def test_no_answer_is_never_right() -> None:
    """Where labels are the first model's answers, a picture without one has the target -1."""
    targets = np.array([0, 0, -1, 1, 1, 2, -1])
    nothing = {key: np.where(targets < 0, -1, np.array(ANSWERS[key])) for key in CONDITIONS}
    found = figures(observed(**{key: values.tolist() for key, values in nothing.items()}), targets, CLASSES, DONORS)
    by_hand = {key: [int(a == b >= 0) for a, b in zip(nothing[key], targets, strict=True)] for key in CONDITIONS}
    for key in CONDITIONS:
        there = observed().possible[key]
        assert found.accuracy[key].r1 == pytest.approx(100 * np.mean(np.array(by_hand[key])[there]))
    # the answers to OTHER are 1 2 -1 1 2 9 -1, the backgrounds' classes 1 2 1 0 2 0 1: three are named
    assert found.pull.rate == pytest.approx(100 * 3 / 7)
    assert found.alone.rate == pytest.approx(100 * 2 / 7)
    silent = np.full(7, -1)
    assert background_alone(silent, targets, np.arange(7)).rate == background_alone(silent, targets, silent).chance == 0
    assert pull(silent, np.full(7, -1), DONORS, np.arange(7)).rate == 0


def test_chance_of_the_background_is_that_of_another_picture() -> None:
    rng = np.random.default_rng(7)
    targets, said = rng.integers(0, 5, 53), rng.integers(0, 7, 53)
    found = background_alone(said, targets, np.arange(53))
    pairs = [(said[i] == targets[j]) for i in range(53) for j in range(53) if i != j]
    assert found.chance == pytest.approx(100 * np.mean(pairs))
    assert found.rate == pytest.approx(100 * np.mean(said == targets))


def test_a_model_of_one_answer_reads_nothing_from_the_background() -> None:
    targets = np.repeat(np.arange(4), 25)
    found = background_alone(np.zeros(100, int), targets, np.arange(100))
    assert found.rate == 25 and found.chance == pytest.approx(25) and not found.difference.settled


def test_pull_of_a_model_that_does_not_look_is_chance_on_average() -> None:
    """Over all backgrounds that could have been drawn, exactly."""
    targets = np.repeat(np.arange(3), 4)
    said = (targets + np.tile([0, 1, 2, 1], 3)) % 3
    values = []
    for shift in (1, 2):  # the other classes, each once
        other = np.array([int(np.flatnonzero(targets == (label + shift) % 3)[0]) for label in targets])
        values.append(pull(said, targets, Donors(other, other), np.arange(12)).difference.value)
    assert np.mean(values) == pytest.approx(0)


def test_classes_are_sorted_by_the_lower_end_not_by_the_fall() -> None:
    """A class of one picture that falls by 100 points comes after one of 40 that falls by 75."""
    targets = np.array([0] * 40 + [1])
    classes = ["many"] * 40 + ["one"]
    donors = Donors(np.where(np.arange(41) < 40, (np.arange(41) + 1) % 40, -1), np.where(np.arange(41) < 40, 40, 0))
    answers = {key: targets.copy() for key in CONDITIONS}
    answers[OTHER] = np.array([1] * 30 + [0] * 10 + [0])
    possible = {key: np.ones(41, bool) for key in CONDITIONS}
    possible[OWN][40] = False
    confidence = {key: np.full(41, 0.5) for key in CONDITIONS}
    found = figures(Observed(answers, confidence, possible, None, np.full(41, 0.5)), targets, classes, donors).classes
    assert [each.name for each in found] == ["many", "one"]
    assert [each.fall.value for each in found] == pytest.approx([75, 100])  # the one against the picture as it is
    assert found[1].accuracy[OWN] is None and found[0].share is None


def test_objects_count_once() -> None:
    twice = np.array([0, 0, 1, 2, 3, 4, 5])
    found = figures(observed(), TARGETS, CLASSES, DONORS, twice)
    assert found.contrast is not None and found.contrast.difference.count == 5  # objects 0 to 4: 1, 0, 0, 0, 1
    assert found.contrast.difference.value == pytest.approx(100 * 2 / 5)


@pytest.mark.parametrize(
    "effect, outcome",
    [
        ((MATTERS, 0.01, 2), "misled"),
        ((MATTERS - 0.01, 0.01, 2), "slightly misled"),
        ((30, 0.0, 60), "open"),  # 0 is no doubt about the sign
        ((2, 0.0, WORRIES - 0.01), "not misled"),
        ((2, 0.0, WORRIES), "open"),
        ((-10, -20, -1), "not misled"),
        ((-10, -30, 6), "open"),
    ],
)
def test_the_rule_at_its_borders(effect: tuple[float, float, float], outcome: str) -> None:
    assert judge(Estimate(*effect, 100, "objects")) == outcome


def test_sentences_hold_the_figures() -> None:
    found = figures(observed(), TARGETS, CLASSES, DONORS)
    first, second = sentences("It", found, 7)
    assert (
        "the same 6 objects it is right in 33.3%" in first
        and "83.3%" in first
        and "a fall of 50.0 points" in first
        and "100.0%" in first
    )
    assert "35.0% of its relevance" in second and "would have 75.0%, its share of the area" in second
    assert (
        "57.1% of the pictures" not in second and "42.9% of the pictures" in second
    )  # from the background alone: 0, 2 and 3


def test_too_few_own_backgrounds_leave_the_pull_to_decide() -> None:
    found = figures(observed(), TARGETS, CLASSES, DONORS)
    assert by_contrast(found, 7) and by_contrast(found, 12) and not by_contrast(found, 13)
    assert "names that class in 42.9% of 7 objects" in sentences("It", found, 13)[0]


def test_the_change_has_its_sign() -> None:
    accuracy = Estimate(-0.5, -1, 0.2, 10, "objects")
    assert "less misled than first: the effect of the background is smaller by 5.0 points" in change_sentence(
        "second", "first", Estimate(-5, -7, -3, 10, "objects"), accuracy
    )
    assert "more misled than first" in change_sentence("second", "first", Estimate(5, 3, 7, 10, "objects"), accuracy)
    assert "neither" in change_sentence("second", "first", Estimate(1, -1, 3, 10, "objects"), accuracy)
