"""evaluation/accuracy/comparison.py: the sign of the difference, images paired by name, names of what changed."""

import pytest

from predicted import predicted
from relevit.errors import UserError
from relevit.evaluation.accuracy.comparison import compare
from relevit.evaluation.accuracy.predictions import Predictions


def rows(hit: list[int], keys: list[str] | None = None, objects: list[str] | None = None) -> Predictions:
    return predicted(hit, keys=keys, objects=objects)


def test_difference_and_names_have_the_right_sign() -> None:
    found = compare(rows([1, 1, 0, 0, 1]), rows([1, 0, 1, 1, 1]))
    assert found.change.value == pytest.approx(20.0) and found.images == 5
    assert found.corrected == ["2.png", "3.png"] and found.ruined == ["1.png"]
    assert found.change.low < 20 < found.change.high and found.p_value == 1.0
    assert dict(found)["corrected"] == 2 and found.to_dict()["ruined"] == ["1.png"]


def test_images_are_paired_by_name() -> None:
    """What only one of the models could read counts for neither."""
    first = rows([1, 0, 1, 0], ["a", "b", "c", "d"])
    other = rows([1, 0, 1], ["b", "c", "e"])
    found = compare(first, other)
    assert found.images == 2 and found.corrected == ["b"] and found.ruined == ["c"] and found.change.value == 0
    with pytest.raises(UserError, match="no image"):
        compare(first, rows([1], ["x"]))
