"""The versions of a picture, pixel by pixel: what is object stays, what is background changes, and not the other way round."""

from __future__ import annotations

import numpy as np
import pytest

from audit_pictures import GREYS, HEIGHT, WIDTH, pictures, scene
from relevit.auditing.conditions import (
    ALONE,
    CONDITIONS,
    GREY,
    ORIGINAL,
    OTHER,
    OWN,
    Donors,
    Versions,
    background_of,
    draw_donors,
)

DONORS = Donors(np.array([1, -1, -1]), np.array([2, 0, -1]))  # of 0: 1 (own class), 2 (another); 1 gets 0's; 2 none


@pytest.fixture
def versions() -> Versions:
    made = pictures(2)
    numbers = [0, 1, 4]  # two of class 0, one of class 2
    return Versions(made.images.subset(numbers), DONORS)


def inside(number: int, by: int) -> np.ndarray:
    """The object's pixels that are at least `by` pixels within its edge; with a negative number those no further than that
    outside of it."""
    mask = np.pad(scene(0, number).mask > 0, 20)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = np.zeros_like(mask)
    box[rows[0] + by : rows[-1] + 1 - by, columns[0] + by : columns[-1] + 1 - by] = True
    return box[20:-20, 20:-20]


@pytest.mark.parametrize(
    "condition, grey",
    [(OWN, GREYS[0]), (OTHER, GREYS[2]), ("background_removed", GREY), ("background_blurred", GREYS[0])],
)
def test_the_object_stays_and_the_background_changes(versions: Versions, condition: str, grey: int) -> None:
    shown = versions.picture(condition, 0)
    assert shown is not None and shown.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(shown[inside(0, 1)], np.tile([255, 0, 0], (inside(0, 1).sum(), 1)))
    behind = shown[~inside(0, 0)].astype(int)
    np.testing.assert_allclose(behind, np.full(behind.shape, grey), atol=1)  # inpainting rounds
    assert inside(0, 1).sum() == 9 * 7 and (~inside(0, 0)).sum() == HEIGHT * WIDTH - 99


def test_object_removed_leaves_nothing_of_it(versions: Versions) -> None:
    shown = versions.picture(ALONE, 0)
    assert shown is not None
    np.testing.assert_array_equal(shown, np.full((HEIGHT, WIDTH, 3), GREYS[0]))
    np.testing.assert_array_equal(background_of(scene(1)), np.full((HEIGHT, WIDTH, 3), GREYS[1]))


def test_original_is_the_picture_itself(versions: Versions) -> None:
    np.testing.assert_array_equal(versions.picture(ORIGINAL, 2), scene(2, 4).picture)


def test_without_a_donor_there_is_no_picture(versions: Versions) -> None:
    assert versions.picture(OWN, 1) is None and versions.picture(OTHER, 2) is None
    assert versions.picture(OTHER, 1) is not None


def test_donors() -> None:
    classes = ["a"] * 7 + ["b"] * 3 + ["c"]
    names = [f"{name}{number}" for number, name in enumerate(classes)]
    donors = draw_donors(names, classes, 0)
    for number, (own, other) in enumerate(zip(donors.own, donors.other, strict=True)):
        assert own == -1 if classes[number] == "c" else (classes[own] == classes[number] and own != number)
        assert classes[other] != classes[number]
    again, another = draw_donors(names, classes, 0), draw_donors(names, classes, 1)
    assert (again.other == donors.other).all() and (another.other != donors.other).any()


def test_other_classes_are_drawn_alike_whatever_their_size() -> None:
    """A class of one picture and one of 60: each has half of the draws of the third class."""
    classes = ["a"] * 400 + ["b"] + ["c"] * 60
    donors = draw_donors([str(number) for number in range(461)], classes, 3)
    share = np.mean([classes[other] == "b" for other in donors.other[:400]])
    assert abs(share - 0.5) < 0.1  # four standard deviations


def test_every_condition_is_described() -> None:
    for key, condition in CONDITIONS.items():
        assert condition.words and condition.short and condition.description, key
