"""The built-in benchmark's sets as `relevit evaluate --data builtin` takes them."""

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from relevit.data.builtin import digits
from relevit.data.builtin.digits import CLASSES, TEST_SETS
from relevit.data.builtin.sets import builtin_sets
from relevit.data.open import sets
from relevit.errors import UserError


class Model(nn.Module):
    num_classes = 20


def test_names_stand_for_all_sets_or_one() -> None:
    assert list(sets("builtin")) == [f"builtin/{name}" for name in TEST_SETS]
    assert list(sets("builtin/size", protocol="paper")) == ["builtin/size"]
    assert builtin_sets("nowhere/size") is None and builtin_sets("builtins") is None
    with pytest.raises(UserError, match=r"builtin/sizes is no set of the built-in benchmark.*background_shuffled"):
        builtin_sets("builtin/sizes")


def test_a_folder_of_that_name_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "builtin").mkdir()
    monkeypatch.chdir(tmp_path)
    assert builtin_sets("builtin") is None


def test_pictures_answers_and_objects_are_those_of_the_set() -> None:
    opened = sets("builtin/rotation")["builtin/rotation"]()
    pictures = digits.test_set("rotation")
    assert len(opened) == len(pictures) == 2400
    assert opened.right_classes(Model()) == [(int(label),) for label in pictures.labels]
    assert opened.competing_classes(Model()) is None
    for index in (0, 101, 799, 2399):
        assert np.array_equal(np.asarray(opened[index].image), np.asarray(pictures[index].image))
        assert opened[index].label == opened.labels[index] == pictures.labels[index]
        assert opened.groups[index] == CLASSES[pictures.labels[index]]
        assert opened.names[index] == f"rotation/{index:05d}"
        assert opened.objects[index] == str(pictures.objects[index])
    other = Model()
    other.num_classes = 1000
    with pytest.raises(UserError, match="has 20 classes, the model 1000"):
        opened.right_classes(other)
