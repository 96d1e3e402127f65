"""The perturbation test: orders, counts and fill by hand, answers against a direct loop, areas against scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import auc
from torch import Tensor, nn

import relevit.explainers
from image_sets import image_set
from relevit.data.benchmarks import class_folders
from relevit.data.samples import Sample
from relevit.errors import UserError
from relevit.evaluation.maps.perturbation import SHARES, Perturbation, perturbation
from relevit.evaluation.maps.removal import filled, pixel_count, random_ranks, removal_ranks, with_pixels_removed
from relevit.evaluation.measurements import MEASUREMENTS
from relevit.explainers import Explainer
from relevit.models.view import evaluation_view
from relevit.statistics.weighted import intervals

HEIGHT, WIDTH = 5, 7
VIEW = evaluation_view(
    {
        "input_size": (3, HEIGHT, WIDTH),
        "mean": (0.4, 0.5, 0.7),
        "std": (0.2, 0.5, 0.3),
        "interpolation": "bilinear",
        "crop_pct": 1.0,
    }
)


class Linear(nn.Module):
    """A linear classifier of five classes on normalised pixels."""

    num_classes = 5

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(
            torch.randn(5, 3, HEIGHT, WIDTH, generator=generator, dtype=torch.float64), requires_grad=True
        )

    def forward(self, images: Tensor) -> Tensor:
        return torch.einsum("bchw,kchw->bk", images.double(), self.weight)


def contribution(
    model: Any, images: Tensor, target: Tensor | None, *, second_order: bool = False
) -> tuple[Tensor, Tensor]:
    """A map on the pixels: what each adds to the target's logit, rounded so that there are many ties."""
    assert target is not None
    added = (images.double() * model.weight.detach()[target]).sum(dim=1)
    return model(images), (added * 2).round() / 2


@pytest.fixture(autouse=True)
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(relevit.explainers.EXPLAINERS, "stub", Explainer(contribution, "of a linear model"))


def samples(count: int = 13, seed: int = 3) -> list[Sample]:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)
    return [
        Sample(picture, np.ones((HEIGHT, WIDTH), np.float32), int(rng.integers(5)), None, f"p{number}")
        for number, picture in enumerate(pictures)
    ]


def measure(data: Any, **options: Any) -> Perturbation:
    return perturbation(Linear(), VIEW, data, **{"explainer": "stub", "random": "pixels", "batch_size": 4} | options)


def direct(model: Linear, sample: Sample, target: int, positive: bool, share: float) -> int:
    """One picture, one share: pixels put into order by a plain sort, set to 0 before normalisation."""
    raw = np.asarray(sample.image, dtype=np.float64) / 255  # (height, width, 3)
    mean, std = np.array([0.4, 0.5, 0.7]), np.array([0.2, 0.5, 0.3])
    weight = model.weight.detach().numpy()  # (5, 3, height, width)
    added = ((raw - mean) / std * weight[target].transpose(1, 2, 0)).sum(axis=2)
    relevance = np.round(added * 2) / 2
    places = [(row, column) for row in range(HEIGHT) for column in range(WIDTH)]
    places.sort(key=lambda place: -relevance[place] if positive else relevance[place])  # stable: ties by index
    for place in places[: int(share * 100) * HEIGHT * WIDTH // 100]:
        raw[place] = 0.0
    logits = ((raw - mean) / std).transpose(2, 0, 1)[None] * weight
    return int(logits.sum(axis=(1, 2, 3)).argmax())


@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_answers_against_a_direct_loop(batch_size: int) -> None:
    data, model = samples(), Linear()
    result = measure(data, batch_size=batch_size)
    original = [direct(model, sample, 0, True, 0.0) for sample in data]
    assert result.original.tolist() == original
    assert len(set(original)) > 2 and original != [sample.label for sample in data]
    for target in ("predicted", "label"):
        for sign in ("positive", "negative"):
            expected = [
                [
                    direct(
                        model, sample, own if target == "predicted" else sample.label, sign == "positive", percent / 100
                    )
                    for percent in range(10, 100, 10)
                ]
                for sample, own in zip(data, original, strict=True)
            ]
            assert result.predictions[f"{sign}_{target}"].tolist() == expected
    # the orders differ, so that no two of them could stand for one another
    every = [tuple(map(tuple, named)) for named in result.predictions.values()]
    assert len(set(every)) == 5


def test_hits_and_areas_against_scikit_learn() -> None:
    data = samples()
    result = measure(data)
    labels = np.array([sample.label for sample in data])
    for order, named in result.predictions.items():
        for reference, right in (("label", labels), ("prediction", result.original)):
            hits = named == right[:, None]
            assert (result.hits(order, reference) == hits).all()
            area = auc(np.array(SHARES), hits.mean(axis=0)) / 0.8
            kind = "auc" if reference == "label" else "agreement"
            assert dict(result)[f"{kind}_{order}"] == pytest.approx(100 * area, abs=1e-9)
    figures = dict(result)
    assert figures["accuracy"] == pytest.approx(100 * (result.original == labels).mean())
    for kind in ("auc", "agreement"):
        for target in ("predicted", "label"):
            contrast = figures[f"{kind}_negative_{target}"] - figures[f"{kind}_positive_{target}"]
            assert figures[f"{kind}_contrast_{target}"] == pytest.approx(contrast)
    # what adds most to the predicted logit goes first: the answer must change sooner than in the other order
    assert figures["agreement_contrast_predicted"] > 10


def test_area_by_hand() -> None:
    """The ends count half: hits at 0.1 and 0.5 of nine give (1/2 + 1) / 8."""
    named = np.zeros((1, 9), np.int32)
    named[0, [0, 4]] = 2
    result = Perturbation(SHARES, ["a"], [""], ["a"], [(1, 2)], np.array([2]), {"random": named})
    assert result.areas("random").tolist() == pytest.approx([1.5 / 8])
    uneven = Perturbation((0.1, 0.2, 0.6), ["a"], [""], ["a"], [(2,)], np.array([2]), {"random": named[:, [0, 1, 4]]})
    assert uneven.areas("random").tolist() == pytest.approx([(0.1 / 2 + 0.4 / 2) / 0.5])


def test_order_by_hand() -> None:
    maps = torch.tensor([[0.5, 0.9, 0.5, 0.1, 0.9], [0.0, 0.0, 0.0, 0.0, 0.0]])
    assert removal_ranks(maps, most_first=True).tolist() == [[2, 0, 3, 4, 1], [0, 1, 2, 3, 4]]
    assert removal_ranks(maps, most_first=False).tolist() == [[1, 3, 2, 0, 4], [0, 1, 2, 3, 4]]


def test_counts() -> None:
    assert [pixel_count(share, 35) for share in SHARES] == [3, 7, 10, 14, 17, 21, 24, 28, 31]
    assert pixel_count(0.29, 100) == 29 and int(0.29 * 100) == 28  # floats alone would lose one
    assert pixel_count(0.0, 35) == 0 and pixel_count(1.0, 35) == 35


def test_exactly_the_first_pixels_are_replaced() -> None:
    images = torch.randn(2, 3, HEIGHT, WIDTH)
    other = torch.full_like(images, 100.0)
    ranks = torch.stack([torch.randperm(35), torch.randperm(35)])
    seen = []

    class Recorder(nn.Module):
        def forward(self, pictures: Tensor) -> Tensor:
            seen.append(pictures)
            return pictures.flatten(1)

    counts = [0, 3, 35]
    replaced = with_pixels_removed(
        Recorder(), images, other, ranks, counts, lambda logits, rows: (logits == 100).sum(dim=1), 4
    )
    assert replaced.tolist() == [[0, 9, 105], [0, 9, 105]]
    pictures = torch.cat(seen).unflatten(0, (2, 3))
    for image in range(2):
        for step, count in enumerate(counts):
            gone = (ranks[image] < count).view(HEIGHT, WIDTH)
            assert (pictures[image, step][:, gone] == 100).all()
            assert torch.equal(pictures[image, step][:, ~gone], images[image][:, ~gone])


def test_fill() -> None:
    images = torch.stack([VIEW(np.asarray(sample.image)) for sample in samples(2)])
    black = VIEW(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert torch.allclose(filled(images, "black", VIEW)[1], black, atol=1e-6)
    assert black[0, 0, 0] == pytest.approx(-2) and black[1, 0, 0] == pytest.approx(-1)  # 0 after it would be the mean
    grey = VIEW(np.full((HEIGHT, WIDTH, 3), 51, np.uint8))
    assert torch.allclose(filled(images, 0.2, VIEW)[0], grey, atol=1e-6)
    assert filled(images, "mean", VIEW).abs().max() == 0
    assert torch.allclose(VIEW.mean + VIEW.std * filled(images, "mean", VIEW)[0], VIEW.mean.expand(3, HEIGHT, WIDTH))


def test_blur_against_a_direct_sum() -> None:
    images = torch.randn(2, 3, 61, 47, dtype=torch.float64)
    blurred = filled(images, "blur", VIEW)
    sigma = 47 / 20
    reach = int(3 * sigma)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    weights /= weights.sum()
    padded = np.pad(images[1, 2].numpy(), reach, mode="reflect")
    expected = sum(
        weights[i] * weights[j] * padded[i : i + 61, j : j + 47]
        for i in range(len(offsets))
        for j in range(len(offsets))
    )
    assert np.allclose(blurred[1, 2].numpy(), expected, atol=1e-9)


def test_fill_reaches_the_model() -> None:
    data = samples()
    found = {
        fill: measure(data, fill=fill).predictions["positive_predicted"].tolist() for fill in ("black", "mean", 1.0)
    }
    assert found["black"] != found["mean"] != found[1.0]


def test_random_order_depends_on_the_seed_and_the_image_alone() -> None:
    images = torch.randn(4, 3, HEIGHT, WIDTH)
    ranks = random_ranks(Linear(), images, [5, 6, 7, 8], "pixels", 1)
    assert torch.equal(random_ranks(Linear(), images[2:3], [7], "pixels", 1)[0], ranks[2])
    assert not torch.equal(random_ranks(Linear(), images[2:3], [7], "pixels", 2)[0], ranks[2])
    assert (
        all(sorted(row) == list(range(35)) for row in ranks.tolist()) and len({tuple(r) for r in ranks.tolist()}) == 4
    )
    results = [measure(samples(), batch_size=size).predictions["random"].tolist() for size in (1, 5, 13)]
    assert results[0] == results[1] == results[2] != measure(samples(), seed=1).predictions["random"].tolist()


def test_random_patches_leave_as_regions() -> None:
    from relevit.models.loading import load

    model, _ = load("builtin", pretrained=False)
    ranks = random_ranks(model, torch.randn(2, 3, 48, 48), [0, 1], "patches", 0)
    assert sorted(ranks[0].tolist()) == list(range(48 * 48))
    gone = (ranks < 1000).view(2, 48, 48)
    # next to a removed pixel there is mostly another one; of single pixels 1000 of 2304 would be, 43 %
    assert (gone[:, :, 1:] & gone[:, :, :-1]).sum() / gone[:, :, :-1].sum() > 0.8
    assert not torch.equal(gone[0], gone[1])


def test_several_right_classes_and_candidates() -> None:
    data = samples()
    right = [(number % 5, (number + 2) % 5) for number in range(len(data))]
    result = measure(image_set(data, right, groups=["a", "b"] * 7))
    assert result.names[3] == "key 3" and result.groups[3] == "b"
    named = result.predictions["positive_label"]
    expected = [[float(each in right[image]) for each in row] for image, row in enumerate(named.tolist())]
    assert result.hits("positive_label").tolist() == expected
    # the map of the right class is the first one's
    first = measure([sample._replace(label=right[i][0]) for i, sample in enumerate(data)])
    assert (first.predictions["positive_label"] == named).all()
    shut = measure(image_set(data, right, [1, 4]))
    assert {int(each) for named in shut.predictions.values() for each in named.ravel()} == {1, 4}
    assert set(shut.original.tolist()) == {1, 4}


def test_an_image_whose_class_the_model_lacks_is_a_miss() -> None:
    data = samples()
    right = [(sample.label,) for sample in data]
    lacking = [() if number % 3 == 0 else own for number, own in enumerate(right)]
    whole, some = measure(image_set(data, right)), measure(image_set(data, lacking))
    missed = np.arange(len(data)) % 3 == 0
    expected = np.where(missed, 0, whole.areas("positive_predicted"))
    assert whole.areas("positive_predicted")[missed].any()
    assert some.areas("positive_predicted").tolist() == expected.tolist()
    named = [
        not gone and right[i] == (said,) for i, (gone, said) in enumerate(zip(missed, whole.original, strict=True))
    ]
    assert dict(some)["accuracy"] == pytest.approx(100 * np.mean(named))


def test_images_without_a_label_count_for_the_agreement_alone() -> None:
    data = samples()
    part = [sample._replace(label=-1 if number % 3 == 0 else sample.label) for number, sample in enumerate(data)]
    whole, some = measure(data), measure(part)
    chosen = np.array([number % 3 != 0 for number in range(len(data))])
    area = whole.areas("negative_predicted")[chosen].mean()
    assert dict(some)["auc_negative_predicted"] == pytest.approx(100 * area)
    assert dict(some)["agreement_negative_predicted"] == dict(whole)["agreement_negative_predicted"]
    none = measure([sample._replace(label=-1) for sample in data])
    assert not any(name.startswith("auc") or name == "accuracy" for name, _ in none)
    json.dumps(none.to_dict(), allow_nan=False)


def test_json_and_intervals() -> None:
    result = measure(samples())
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["settings"] == {"explainer": "stub", "fill": "black", "random": "pixels", "seed": 0}
    assert content["figures"] == {name: pytest.approx(value, abs=1e-5) for name, value in result}
    curve = content["curves"]["auc_positive_predicted"]
    assert curve["value"] == pytest.approx((100 * result.hits("positive_predicted").mean(axis=0)).tolist(), abs=1e-3)
    assert all(
        low <= value <= high for low, value, high in zip(curve["low"], curve["value"], curve["high"], strict=True)
    )
    ends = intervals(result)
    for name, value in result:
        assert ends[name].low <= value <= ends[name].high and ends[name].low < ends[name].high
    half = result.only(np.array([1, 4, 6]))
    assert half.names == ["p1", "p4", "p6"]
    assert dict(half)["agreement_random"] == pytest.approx(100 * result.areas("random", "prediction")[[1, 4, 6]].mean())


def test_one_target_alone_and_its_order() -> None:
    both = measure(samples())
    alone = measure(samples(), targets=["label"], random="none")
    assert list(alone.predictions) == ["positive_label", "negative_label"]
    assert (alone.predictions["negative_label"] == both.predictions["negative_label"]).all()


def test_model_is_as_before_and_progress_adds_up() -> None:
    model, done = Linear().train(), []
    perturbation(model, VIEW, samples(), explainer="stub", random="none", batch_size=5, progress=done.append)
    assert (
        model.training
        and model.weight.requires_grad
        and model.weight.grad is None
        and sum(done) == 13 == len(samples())
    )


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    for name in ("0", "4"):
        (tmp_path / name).mkdir()
        for number, sample in enumerate(samples(3)):
            Image.fromarray(np.asarray(sample.image)).save(tmp_path / name / f"{number}.png")
    (tmp_path / "4" / "1.png").write_bytes(b"broken")
    result = measure(class_folders(tmp_path))
    assert [each.name for each in result.left_out] == ["4/1.png"] and "4/1.png" in result.left_out[0].reason
    assert result.names == ["0/0.png", "0/1.png", "0/2.png", "4/0.png", "4/2.png"] and result.answers[3] == (4,)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match="none of the 6 images could be read"):
        measure(class_folders(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fill": "white"}, "fill must be black, mean, blur or a number"),
        ({"fill": 1.5}, "fill must be"),
        ({"fill": float("nan")}, "fill must be"),
        ({"explainer": "gea"}, "unknown explainer 'gea'"),
        ({"targets": ["mine"]}, "targets must be one or both"),
        ({"targets": []}, "targets must be one or both"),
        ({"shares": [0.5]}, "shares must be two or more"),
        ({"shares": [0.5, 0.1]}, "shares must be two or more"),
        ({"shares": [0.5, 1.1]}, "shares must be two or more"),
        ({"random": "yes"}, "random must be one of patches, pixels, none"),
        ({"batch_size": 0}, "batch_size must be a whole number from 1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        measure(samples(), **options)


def test_bad_data_are_refused() -> None:
    with pytest.raises(UserError, match="holds no images"):
        measure([])
    with pytest.raises(UserError, match="p0 has the label 9, but the model knows the classes 0 to 4"):
        measure([sample._replace(label=9) for sample in samples()])
    with pytest.raises(UserError, match="needs the view's mean and std"):
        perturbation(Linear(), lambda picture: VIEW(picture), samples(), explainer="stub")


def test_maps_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: Any, images: Tensor, target: Any, *, second_order: bool = False) -> tuple[Tensor, Tensor]:
        return model(images), torch.full(images[:, 0].shape, torch.nan)

    monkeypatch.setitem(relevit.explainers.EXPLAINERS, "broken", Explainer(broken, "of nothing"))
    with pytest.raises(UserError, match="maps of broken are not finite"):
        measure(samples(), explainer="broken")


def test_in_the_table() -> None:
    row = MEASUREMENTS["perturbation"]
    assert row.function is perturbation and row.needs == "images" and {"explainer", "fill"} <= set(row.options)
