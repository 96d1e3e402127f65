"""evaluation/localization.py: figures of small maps by hand, distances by brute force, classes and images left out."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from measuring import measure
from pixel_model import plain_view
from relevit import explainers
from relevit.data.sample import Sample
from relevit.errors import UserError
from relevit.evaluation.maps.localization import FIGURES, measured


def figures(maps: Tensor, mask: Tensor, ignore: Tensor | None = None, radius: float = 0.0) -> dict[str, float]:
    ignore = torch.zeros_like(mask) if ignore is None else ignore
    return dict(zip(FIGURES, measured(maps[None], mask[None], ignore[None], radius)[0].tolist(), strict=True))


MAP = torch.tensor([[0.0, 0.5, 1.0], [0.0, 0.9, 0.0]])  # sum 2.4, mean 0.4


def test_a_map_of_six_pixels_by_hand() -> None:
    found = figures(MAP, torch.tensor([[0, 0, 1], [1, 1, 0]]).bool())
    expected = {"share_on_object": 1.9 / 2.4, "pointing_game": 1, "coverage": 2 / 3, "object_area": 3 / 6}
    assert found == pytest.approx(expected, abs=1e-7)
    other = figures(MAP, torch.tensor([[1, 1, 0], [1, 0, 1]]).bool())
    expected = {"share_on_object": 0.5 / 2.4, "pointing_game": 0, "coverage": 1 / 4, "object_area": 4 / 6}
    assert other == pytest.approx(expected, abs=1e-7)


def test_ignored_pixels_count_for_nothing() -> None:
    mask = torch.tensor([[0, 1, 1], [0, 0, 0]]).bool()
    ignore = torch.tensor([[0, 0, 1], [0, 0, 1]]).bool()  # left are 0, 0.5 (the object), 0, 0.9: sum 1.4, mean 0.35
    expected = {"share_on_object": 0.5 / 1.4, "pointing_game": 0, "coverage": 1, "object_area": 1 / 4}
    assert figures(MAP, mask, ignore) == pytest.approx(expected, abs=1e-7)


def test_a_flat_map_has_nothing_on_the_object() -> None:
    mask = torch.tensor([[0, 1, 1], [0, 0, 0]]).bool()
    assert figures(torch.zeros(2, 3), mask, radius=9.0) == pytest.approx(
        {"share_on_object": 0, "pointing_game": 0, "coverage": 0, "object_area": 1 / 3}
    )


@pytest.mark.parametrize(("mask", "hit"), [([1, 0, 0], 0), ([1, 0, 1], 1), ([0, 1, 0], 0)])
def test_of_several_highest_points_at_least_half_must_hit(mask: list[int], hit: int) -> None:
    maps = torch.tensor([[1.0, 0.2, 1.0], [1.0, 0.0, 0.3]])
    assert figures(maps, torch.tensor([mask, [0, 0, 1]]).bool())["pointing_game"] == hit


@pytest.mark.parametrize("seed", range(4))
def test_the_tolerance_is_a_distance_in_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = np.zeros((17, 23), bool)
    mask[rng.integers(0, 17, 2), rng.integers(0, 23, 2)] = True
    rows, columns = np.nonzero(mask)
    for _ in range(5):
        row, column = rng.integers(0, 17), rng.integers(0, 23)
        maps = torch.zeros(17, 23)
        maps[row, column] = 1
        distance = np.sqrt((rows - row) ** 2 + (columns - column) ** 2).min()
        for radius in (distance - 0.01, distance, distance + 0.01):
            hit = figures(maps, torch.from_numpy(mask), radius=radius)["pointing_game"]
            assert hit == (1 if radius >= distance else 0)


SIZE = 32
VIEW = plain_view(SIZE, SIZE)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The map is the input's channel of the class; class 0, red, is predicted."""

    def explain(model: Any, images: Tensor, target: Tensor | None, *, second_order: bool = False) -> Any:
        logits = torch.tensor([[1.0, 0.0, 0.0]]).expand(len(images), 3)
        chosen = torch.zeros(len(images), dtype=torch.long) if target is None else target
        return logits, images[torch.arange(len(images)), chosen]

    monkeypatch.setitem(explainers.EXPLAINERS, "gae", explain)
    module = nn.Linear(1, 1)
    module.num_classes = 3
    return module


def sample(row: int, column: int, channel: int, label: int, name: str, height: int = SIZE, width: int = SIZE) -> Sample:
    """A bright point in one channel; the object is the square of 3 x 3 around (5, 7)."""
    image = np.zeros((height, width, 3), np.uint8)
    image[row, column, channel] = 255
    mask = np.zeros((height, width), np.float32)
    mask[4:7, 6:9] = 1
    return Sample(image, mask, label, None, name)


def test_by_image_and_by_class_in_percent(model: nn.Module) -> None:
    data = [
        sample(5, 7, 0, 1, "on it"),
        sample(5, 10, 0, 1, "2 pixels beside it"),
        sample(5, 11, 0, 2, "3 pixels beside it"),
    ]
    result = measure("localization", model, VIEW, data, batch_size=2, tolerance=14)  # 14 * 32 / 224 = 2 pixels
    assert result.names == ["on it", "2 pixels beside it", "3 pixels beside it"]
    assert result.values["pointing_game"].tolist() == [100, 100, 0]
    assert result.values["share_on_object"].tolist() == [100, 0, 0]
    assert result.values["object_area"] == pytest.approx([100 * 9 / 1024] * 3)
    assert result.values["coverage"] == pytest.approx([100 / 9, 0, 0])
    assert dict(result)["pointing_game"] == pytest.approx(200 / 3)
    classes = result.to_dict()["classes"]
    assert {name: (each["images"], each["figures"]["pointing_game"]) for name, each in classes.items()} == {
        "1": (2, 100),
        "2": (1, 0),
    }
    assert measure("localization", model, VIEW, data, tolerance=0).values["pointing_game"].tolist() == [100, 0, 0]
    assert measure("localization", model, VIEW, data, tolerance=13.9).values["pointing_game"].tolist() == [100, 0, 0]
    assert measure("localization", model, VIEW, data).values["pointing_game"].tolist() == [
        100,
        100,
        0,
    ]  # 15 pixels of 224


def test_the_labels_map_is_another(model: nn.Module) -> None:
    data = [sample(5, 7, 1, 1, "green")]
    assert dict(measure("localization", model, VIEW, data))["share_on_object"] == 0  # the red map is flat
    assert dict(measure("localization", model, VIEW, data, target="label"))["share_on_object"] == 100


def test_crop_is_the_models_view_and_squash_the_whole_picture(model: nn.Module) -> None:
    wide = sample(5, 7, 0, 0, "wide", SIZE, 4 * SIZE)  # the middle 32 columns of 128 do not have the object
    upright = sample(5, 7, 0, 0, "square")
    result = measure("localization", model, VIEW, [wide, upright])
    assert result.names == ["square"]
    assert [(fault.name, fault.reason) for fault in result.left_out] == [
        ("wide", "no object in the model's view of it")
    ]
    squashed = measure("localization", model, VIEW, [wide, upright], geometry="squash")
    assert squashed.names == ["wide", "square"] and dict(squashed)["pointing_game"] == 100
    with pytest.raises(UserError, match="none of the 1 images has an object"):
        measure("localization", model, VIEW, [wide])


@pytest.mark.parametrize(
    "option", [{"tolerance": -1}, {"tolerance": "far"}, {"tolerance": float("nan")}, {"geometry": "pad"}]
)
def test_wrong_options(model: nn.Module, option: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(option))} must be"):
        measure("localization", model, VIEW, [sample(5, 7, 0, 0, "it")], **option)
