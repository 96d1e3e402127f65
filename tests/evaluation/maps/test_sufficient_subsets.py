"""Sufficient subsets: on models where they are known by hand, and paths against a direct loop in double precision."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pixel_model
from advances import advances
from image_sets import image_set
from measuring import measure
from pixel_model import HEIGHT, WIDTH, plain_view
from relevit.data.sample import Sample
from relevit.errors import UserError
from relevit.evaluation.maps.sufficient_subsets import SufficientSubsets, path, sizes
from relevit.evaluation.measured import Measured
from relevit.evaluation.measurements import MEASUREMENTS

PIXELS = HEIGHT * WIDTH
VIEW = plain_view(HEIGHT, WIDTH, (0.25, 0.5, 0.75), (0.5, 0.25, 0.125))


class Sum(nn.Module):
    """Two classes: the logit of the first is the sum over pixels of a weight times the red value, 0 to 1, plus a bias."""

    num_classes = 2

    def __init__(self, weight: Tensor, bias: float = 0.0) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.double()), bias

    def forward(self, images: Tensor) -> Tensor:
        red = images[:, 0].double() * 0.5 + 0.25
        logit = (red * self.weight).sum(dim=(1, 2)) + self.bias
        return torch.stack([logit, torch.zeros_like(logit)], dim=1)


class Net(nn.Module):
    """Two layers, in double precision: the order of the pixels changes along the path."""

    num_classes = 5

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(3 * PIXELS, 13, generator=generator, dtype=torch.float64) * 0.3)
        self.second = nn.Parameter(torch.randn(13, 5, generator=generator, dtype=torch.float64) * 2)

    def forward(self, images: Tensor) -> Tensor:
        return torch.tanh(images.double().flatten(1) @ self.first) @ self.second


def samples(count: int = 7) -> list[Sample]:
    return [sample._replace(label=-1) for sample in pixel_model.samples(count)]


def white() -> list[Sample]:
    return [samples(1)[0]._replace(image=np.full((HEIGHT, WIDTH, 3), 255, np.uint8))]


def sufficient_subsets(model: nn.Module, view: Any, data: Any, **options: Any) -> Measured:
    return measure("sufficient_subsets", model, view, data, **options)


def logit(confidence: float) -> float:
    return math.log(confidence / (1 - confidence))


def test_sizes() -> None:
    assert sizes(7, 0.01) == [7, 6, 5, 4, 3, 2, 1, 0]
    assert sizes(40, 0.25) == [40, 30, 23, 18, 14, 11, 9, 7, 6, 5, 4, 3, 2, 1, 0]
    assert sizes(1, 0.5) == [1, 0]


def test_known_by_hand() -> None:
    """A white picture: the weights 4, 3, 2, 1, -1, -2 at six pixels, 0 elsewhere; black adds nothing.

    Confidence 0.9 of the first class takes a sum of 2.2: one pixel (4); with a bias of -3 two (4 + 3), of -6 three (4 + 3 + 2).
    """
    weight = torch.zeros(HEIGHT, WIDTH)
    weight[1, 2], weight[4, 6], weight[0, 0], weight[2, 3], weight[3, 3], weight[0, 6] = 4, 3, 2, 1, -1, -2
    for bias, count in ((0.0, 1), (-3.0, 2), (-6.0, 3)):
        result = sufficient_subsets(Sum(weight, bias), VIEW, white(), remove=0.01)
        if bias == -6.0:  # the whole picture has 7 - 6 = 1: predicted, and not confident, yet the best three pixels are
            assert result.column("whole_predicted")[0] == pytest.approx(1 / (1 + math.exp(-1)))
            assert result.column("whole_predicted")[0] < 0.9
        assert result.column("class_predicted").tolist() == [0]
        assert result.column("share_predicted").tolist() == [count / PIXELS]
        total = sum((4, 3, 2)[:count]) + bias
        assert result.column("confidence_predicted")[0] == pytest.approx(1 / (1 + math.exp(-total)))
        kept, _ = list(
            path(Sum(weight, bias), VIEW(np.asarray(white()[0].image))[None], _black(), torch.tensor([0]), 0.01)
        )[-1 - count]
        chosen = {(int(row), int(column)) for _, row, column in torch.nonzero(kept)}
        assert chosen == set([(1, 2), (4, 6), (0, 0)][:count])


def test_other_class_by_hand() -> None:
    """The other class has -(sum): the pixels that speak for it are those of negative weight, together 3, confidence 0.95."""
    weight = torch.zeros(HEIGHT, WIDTH)
    weight[1, 2], weight[4, 6], weight[3, 3], weight[0, 6] = 4, 3, -1, -2
    for threshold, share in ((0.88, 1 / PIXELS), (0.9, 2 / PIXELS), (0.95, 2 / PIXELS), (0.96, math.nan)):
        result = sufficient_subsets(Sum(weight), VIEW, white(), threshold=threshold, remove=0.01)
        assert result.column("class_other").tolist() == [1]
        assert result.column("whole_other")[0] == pytest.approx(1 / (1 + math.exp(4)))
        assert result.column("share_other").tolist() == pytest.approx([share], nan_ok=True)
        figures = dict(result)
        assert figures["found_other"] == (0 if math.isnan(share) else 100) and figures["whole_other"] == 0
        assert figures["found_predicted"] == figures["whole_predicted"] == 100
        assert result.column("confidence_other")[0] == pytest.approx(
            {0.88: 1 / (1 + math.exp(-2)), 0.96: math.nan}.get(threshold, 1 / (1 + math.exp(-3))), nan_ok=True
        )


def test_no_pixel_at_all_may_be_enough() -> None:
    result = sufficient_subsets(Sum(torch.zeros(HEIGHT, WIDTH), 3.0), VIEW, white())
    assert result.column("share_predicted").tolist() == [0.0] and dict(result)["found_predicted"] == 100


def test_a_constant_weight_needs_so_many_pixels() -> None:
    """All pixels alike: 0.25 each, so 9 for a sum of 2.2, and the last ones stay, since the first go first."""
    model = Sum(torch.full((HEIGHT, WIDTH), 0.25))
    result = sufficient_subsets(model, VIEW, white(), remove=0.01)
    assert math.ceil(logit(0.9) / 0.25) == 9
    assert result.column("share_predicted").tolist() == [9 / PIXELS]
    kept, _ = list(path(model, VIEW(np.asarray(white()[0].image))[None], _black(), torch.tensor([0]), 0.01))[-10]
    assert torch.equal(kept.flatten(), torch.arange(PIXELS) >= PIXELS - 9)


def _black() -> Tensor:
    return VIEW(np.zeros((HEIGHT, WIDTH, 3), np.uint8))[None]


def direct(model: Net, sample: Sample, target: int, remove: float, fill: float) -> list[tuple[int, float]]:
    """(pixels left, confidence) along the path: one picture, the derivative by the mask by hand, sets by a sort."""
    mean, std = (np.array(each)[:, None, None] for each in ((0.25, 0.5, 0.75), (0.5, 0.25, 0.125)))
    picture = (np.asarray(sample.image).transpose(2, 0, 1) / 255 - mean) / std
    blank = (fill - mean) / std + 0 * picture
    first, second = model.first.detach().numpy(), model.second.detach().numpy()
    left, found = set(range(PIXELS)), []
    while True:
        kept = np.array([place in left for place in range(PIXELS)]).reshape(HEIGHT, WIDTH)
        hidden = np.tanh(np.where(kept, picture, blank).ravel() @ first)
        scores = hidden @ second
        probabilities = np.exp(scores) / np.exp(scores).sum()
        found.append((len(left), float(probabilities[target])))
        if not left:
            return found
        by_score = (np.arange(5) == target) - probabilities  # of log p(target)
        by_pixel = ((by_score @ second.T) * (1 - hidden**2)) @ first.T
        by_mask = (by_pixel.reshape(3, HEIGHT, WIDTH) * (picture - blank)).sum(axis=0).ravel()
        order = sorted(left, key=lambda place: (by_mask[place], place))
        left -= set(order[: max(1, math.floor(remove * len(left)))])


@pytest.mark.parametrize(("remove", "fill"), [(0.01, "black"), (0.25, "black"), (0.25, 0.4)])
@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_against_a_direct_loop(remove: float, fill: Any, batch_size: int) -> None:
    data, model = samples(), Net()
    result = sufficient_subsets(model, VIEW, data, remove=remove, fill=fill, batch_size=batch_size, threshold=0.9)
    views = torch.stack([VIEW(np.asarray(sample.image)) for sample in data])
    predicted = model(views).argmax(dim=1).tolist()
    assert result.column("class_predicted").tolist() == predicted and len(set(predicted)) > 2
    for kind in ("predicted", "other"):
        classes, shares, confidences, wholes = (
            result.column(f"{name}_{kind}") for name in ("class", "share", "confidence", "whole")
        )
        for image, sample in enumerate(data):
            steps = direct(model, sample, int(classes[image]), remove, 0.0 if fill == "black" else fill)
            enough = [(left, confidence) for left, confidence in steps if confidence >= 0.9]
            expected = min(enough) if enough else (math.nan, math.nan)
            assert shares[image] * PIXELS == pytest.approx(expected[0], nan_ok=True)
            assert confidences[image] == pytest.approx(expected[1], nan_ok=True, abs=1e-5)
            assert wholes[image] == pytest.approx(steps[0][1], abs=1e-5)


def test_path_is_nested_and_ends_at_the_blank() -> None:
    data, model = samples(), Net()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    views = torch.stack([VIEW(np.asarray(sample.image)) for sample in data])
    blank = torch.zeros_like(views)
    target = torch.arange(7) % 5
    steps = list(path(model, views, blank, target, 0.2))
    assert [int(kept[0].sum()) for kept, _ in steps] == sizes(PIXELS, 0.2)
    for (before, _), (after, _) in pairwise(steps):
        assert not (after & ~before).any() and after.flatten(1).sum(dim=1).unique().numel() == 1
    for kept, confidence in steps:
        seen = torch.where(kept[:, None], views, blank)
        assert torch.allclose(confidence, model(seen).softmax(dim=1).gather(1, target[:, None])[:, 0], atol=1e-12)


def test_other_classes() -> None:
    data = samples(40)
    result = sufficient_subsets(Net(), VIEW, data, remove=0.5)
    predicted, other = (result.column(f"class_{kind}") for kind in ("predicted", "other"))
    assert (predicted != other).all() and set(other.tolist()) == {0, 1, 2, 3, 4}
    again = sufficient_subsets(Net(), VIEW, data, remove=0.5, batch_size=3).column("class_other")
    assert again.tolist() == other.tolist()
    assert sufficient_subsets(Net(), VIEW, data, remove=0.5, seed=1).column("class_other").tolist() != other.tolist()
    common = int(np.bincount(predicted).argmax())
    given = sufficient_subsets(Net(), VIEW, data, remove=0.5, other=common)
    same = predicted == common
    assert same.any() and not same.all()
    assert (given.column("class_other")[same] == -1).all() and (given.column("class_other")[~same] == common).all()
    assert (
        np.isnan(given.column("share_other")[same]).all()
        and np.isnan(given.values["found_other"][same]).all()
        and np.isnan(given.column("whole_other")[same]).all()
    )
    assert not np.isnan(given.values["found_other"][~same]).any()
    alone = sufficient_subsets(Net(), VIEW, data, remove=0.5, other="none")
    assert "class_predicted" in alone.rows.column_names and "class_other" not in alone.rows.column_names


def test_figures_and_json() -> None:
    result = sufficient_subsets(Net(), VIEW, samples(23), remove=0.1, threshold=0.97)
    figures = dict(result)
    for kind in ("predicted", "other"):
        shares, confidence, whole = (result.column(f"{name}_{kind}") for name in ("share", "confidence", "whole"))
        there = ~np.isnan(shares)
        assert figures[f"share_{kind}"] == pytest.approx(100 * shares[there].mean())
        assert figures[f"found_{kind}"] == pytest.approx(100 * there.mean())
        assert figures[f"whole_{kind}"] == pytest.approx(100 * (whole >= 0.97).mean())
        assert (confidence[there] >= 0.97).all() and 0 < there.mean()
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["figures"]["share_other"] == pytest.approx(figures["share_other"], abs=1e-5)
    assert content["per_image"]["class_other"] == result.column("class_other").tolist()
    assert result.only(np.array([3, 5])).names == ["p3", "p5"]


def test_model_is_as_before_and_progress_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model, done = Net().train(), advances(monkeypatch)
    model.second.requires_grad_(False)
    sufficient_subsets(model, VIEW, samples(), remove=0.5, batch_size=3)
    assert model.training and model.first.requires_grad and not model.second.requires_grad
    assert model.first.grad is None and sum(done) == 7
    with torch.no_grad():  # works also where gradients are disabled
        assert dict(sufficient_subsets(model, VIEW, samples(), remove=0.5))["found_predicted"] > 0
    with torch.inference_mode():
        assert dict(sufficient_subsets(model, VIEW, samples(), remove=0.5))["found_predicted"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0}, "threshold must be a confidence above 0"),
        ({"threshold": 1.1}, "threshold must be a confidence above 0"),
        ({"remove": 0}, "remove must be a share"),
        ({"remove": 1}, "remove must be a share"),
        ({"other": "all"}, "other must be random, none or the index"),
        ({"other": 9}, "other is the class 9, but the model knows the classes 0 to 4"),
        ({"fill": "sky"}, "fill must be black"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        sufficient_subsets(Net(), VIEW, samples(), **options)


def test_logits_that_are_not_finite_are_refused() -> None:
    model = Net()
    with torch.no_grad():
        model.second.fill_(torch.nan)
    with pytest.raises(UserError, match="logits of p0 or an image after it are not finite"):
        sufficient_subsets(model, VIEW, samples())
    row = MEASUREMENTS["sufficient_subsets"]
    assert row is SufficientSubsets and row.needs == "images"
    assert isinstance(sufficient_subsets(Net(), VIEW, samples(1), remove=0.5), Measured)


def test_only_the_classes_of_the_benchmark_compete() -> None:
    """As with a model whose head has these classes alone, whose numbers are then places among them."""

    part = Net()
    part.num_classes = 3
    part.second = nn.Parameter(part.second.detach()[:, [0, 3, 4]])
    options: dict[str, Any] = {"batch_size": 3, "threshold": 0.6, "remove": 0.2, "seed": 5}
    found = sufficient_subsets(Net(), VIEW, image_set(samples(11), competing=[3, 0, 4]), **options)
    expected = sufficient_subsets(part, VIEW, samples(11), **options)
    for kind in ("predicted", "other"):
        places = expected.column(f"class_{kind}")
        assert found.column(f"class_{kind}").tolist() == np.array([0, 3, 4])[places].tolist()
        np.testing.assert_allclose(found.column(f"whole_{kind}"), expected.column(f"whole_{kind}"), atol=1e-12)
        np.testing.assert_array_equal(found.column(f"share_{kind}"), expected.column(f"share_{kind}"))
    with pytest.raises(UserError, match="other is the class 1, which is none of the 3 that compete"):
        sufficient_subsets(Net(), VIEW, image_set(samples(), competing=[3, 0, 4]), other=1)
