"""evaluation/segmentation.py on maps made by hand, and against loops of NumPy and scikit-learn in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, jaccard_score
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_average_precision

from advances import advances
from measuring import measure
from pixel_model import plain_view
from relevit import explainers
from relevit.data.sample import Sample
from relevit.errors import UserError
from relevit.evaluation.batches import squash
from relevit.evaluation.maps.segmentation import above_mean, average_precision, counts_of, pixel_counts
from relevit.evaluation.measured import Measured

HEIGHT, WIDTH = 11, 17
VIEW = plain_view(HEIGHT, WIDTH, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), interpolation="bicubic", crop_pct=0.8)


def none(maps: Tensor) -> Tensor:
    return torch.zeros_like(maps, dtype=torch.bool)


def test_a_map_of_six_pixels_by_hand() -> None:
    # the mean is 0.4: above it are 0.5, 0.9 and 1.0
    maps = torch.tensor([[[0.0, 0.5, 1.0], [0.0, 0.9, 0.0]]])
    mask = torch.tensor([[[0, 0, 1], [1, 1, 0]]]).bool()
    assert above_mean(maps, none(maps)).tolist() == [[[False, True, True], [False, True, False]]]
    # background: two below, one above; object: one below (0.0), two above
    assert pixel_counts(maps, mask, none(maps)).tolist() == [[2, 1, 1, 2]]
    # scores of right labels among all twelve, by threshold: 1.0 (right: background 2, object 1; wrong: background of the object pixel
    # with R = 0), 0.9 (right), 0.5 (right: the background pixel; wrong: its object score), 0.1 (wrong), 0.0 (right: none but ...)
    ranked = [(1.0, 3, 1), (0.9, 1, 0), (0.5, 1, 1), (0.1, 0, 1), (0.0, 1, 3)]  # threshold, right, wrong
    expected, right, wrong = 0.0, 0, 0
    for _, more, worse in ranked:
        right, wrong = right + more, wrong + worse
        expected += more / 6 * right / (right + wrong)
    assert average_precision(maps.double(), mask, none(maps)).item() == pytest.approx(expected, abs=1e-15)


def test_a_map_that_is_its_mask_is_perfect_its_opposite_is_not() -> None:
    mask = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) < 0.3
    maps = mask.double()
    assert average_precision(maps, mask, none(maps)).tolist() == [1, 1, 1]
    assert pixel_counts(maps, mask, none(maps))[:, 1:3].abs().sum() == 0
    assert average_precision(1 - maps, mask, none(maps)) == pytest.approx([0.5] * 3)  # all wrong ones first
    assert pixel_counts(1 - maps, mask, none(maps))[:, [0, 3]].abs().sum() == 0


@pytest.mark.parametrize("level", [None, 7])  # many equal scores with 7 levels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_average_precision_is_scikit_learns(level: int | None, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    maps = torch.rand(5, HEIGHT, WIDTH, generator=generator, dtype=dtype)
    if level is not None:
        maps = (maps * level).round() / level
    mask = torch.rand(5, HEIGHT, WIDTH, generator=generator) < torch.linspace(0, 1, 5)[:, None, None]
    ignore = torch.rand(5, HEIGHT, WIDTH, generator=generator) < 0.2
    found = average_precision(maps, mask, ignore)
    assert found.dtype == torch.float64
    for image in range(5):
        there = ~ignore[image]
        score = torch.cat([1 - maps[image][there], maps[image][there]])
        label = torch.cat([~mask[image][there], mask[image][there]])
        assert found[image].item() == pytest.approx(average_precision_score(label.numpy(), score.numpy()), abs=1e-14)
        assert found[image].item() == pytest.approx(binary_average_precision(score, label.int()).item(), abs=1e-5)
        assert found[image].item() == pytest.approx(by_definition(label.tolist(), score.tolist()), abs=1e-13)


def by_definition(labels: list[bool], scores: list[float]) -> float:
    """The sum over thresholds, from the highest down, of precision times the gain in recall."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        above = [label for label, score in zip(labels, scores, strict=True) if score >= threshold]
        total += sum(above) / len(above) * (sum(above) / sum(labels) - recall)
        recall = sum(above) / sum(labels)
    return total


def test_ignored_pixels_count_for_nothing() -> None:
    generator = torch.Generator().manual_seed(4)
    maps, other = torch.rand(2, 3, HEIGHT, WIDTH, generator=generator)
    mask = torch.rand(3, HEIGHT, WIDTH, generator=generator) < 0.4
    ignore = torch.rand(3, HEIGHT, WIDTH, generator=generator) < 0.3
    changed = torch.where(ignore, other, maps)
    for function in (pixel_counts, average_precision):
        assert torch.equal(function(maps, mask, ignore), function(changed, mask ^ ignore, ignore))
        assert not torch.equal(function(maps, mask, ignore), function(maps, mask, none(maps)))
    assert torch.equal(pixel_counts(maps, mask, ignore).sum(dim=1), (~ignore).sum(dim=(1, 2)))
    everything = torch.ones_like(ignore)
    assert average_precision(maps, mask, everything).isnan().all() and not pixel_counts(maps, mask, everything).any()


def test_a_flat_map_has_no_foreground() -> None:
    maps = torch.full((1, 7, 13), 0.1)  # whose sum over 91 pixels is not 91 times it
    assert not above_mean(maps, none(maps)).any() and not above_mean(0 * maps, none(maps)).any()


def segmentation(model: nn.Module, view: Any, data: Any, **options: Any) -> Measured:
    return measure("segmentation", model, view, data, **options)


class Pattern(nn.Module):
    """A classifier of which only its device, mode and classes matter here."""

    num_classes = 5

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))


@pytest.fixture
def from_red(monkeypatch: pytest.MonkeyPatch) -> Pattern:
    """An explainer whose map is the input's first channel in the frame of the input; it predicts class 3 and notes the mode."""

    def explain(model: Any, images: Tensor, target: Tensor | None, *, second_order: bool = False) -> Any:
        assert not model.training and not torch.is_grad_enabled()
        logits = torch.zeros(len(images), 5)
        logits[:, 3] = 1
        scale = 1.0 if target is None else -1.0 * (1 + target[:, None, None])  # another class, another map
        return logits, scale * images[:, 0]

    monkeypatch.setitem(explainers.EXPLAINERS, "gae", explain)
    return Pattern().train()


SIZES = ((7, 13), (29, 31), (HEIGHT, WIDTH), (19, 5))


def samples() -> list[Sample]:
    rng = np.random.default_rng(7)
    made = []
    for number, (height, width) in enumerate(SIZES):
        mask = np.zeros((height, width), np.float32)
        mask[height // 3 :, : width // 2] = 1
        image = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
        image[mask > 0] += 90
        ignore = rng.random((height, width)) < 0.2 if number % 2 else None
        made.append(Sample(image, mask, number % 3, ignore, f"picture {number}"))
    return made


def expected(data: list[Sample]) -> tuple[dict[str, float], list[float]]:
    """The whole test again, image by image, in NumPy, PIL and scikit-learn."""
    truths, founds, precisions = [], [], []
    for sample in data:
        red = np.asarray(Image.fromarray(sample.image).resize((WIDTH, HEIGHT), Image.BILINEAR))[..., 0]
        relevance = (red.astype(np.float32) / 255 - np.float32(0.1)) / np.float32(0.5)
        relevance = (relevance - relevance.min()) / (relevance.max() - relevance.min())
        rows = ((np.arange(HEIGHT) + 0.5) * sample.mask.shape[0] / HEIGHT).astype(int)  # the nearest pixel
        columns = ((np.arange(WIDTH) + 0.5) * sample.mask.shape[1] / WIDTH).astype(int)
        mask = sample.mask[np.ix_(rows, columns)] > 0
        there = np.ones_like(mask) if sample.ignore is None else ~sample.ignore[np.ix_(rows, columns)]
        relevance, mask = relevance[there], mask[there]
        truths.append(mask)
        founds.append(relevance > relevance.astype(np.float64).mean())
        precisions.append(average_precision_score(np.r_[~mask, mask], np.r_[1 - relevance, relevance]))
    truth, found = np.concatenate(truths), np.concatenate(founds)
    sides = [jaccard_score(truth, found, pos_label=side) for side in (False, True)]
    figures = {
        "pixel_accuracy": (truth == found).mean(),
        "miou": np.mean(sides),
        "map": np.mean(precisions),
        "iou_background": sides[0],
        "iou_object": sides[1],
    }
    return {name: 100 * value for name, value in figures.items()}, precisions


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_whole_test_against_a_loop(
    from_red: Pattern, batch_size: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = advances(monkeypatch)
    result = segmentation(from_red, VIEW, samples(), batch_size=batch_size, workers=workers)
    figures, precisions = expected(samples())
    assert dict(result) == pytest.approx(figures, abs=1e-10) and list(dict(result)) == list(figures)
    assert result.column("average_precision") == pytest.approx(precisions, abs=1e-12)
    assert result.names == [f"picture {number}" for number in range(4)] and result.groups == ["0", "1", "2", "0"]
    assert sum(steps) == 4 and from_red.training
    each = result.values
    for number, sample in enumerate(samples()):
        alone, _ = expected([sample])
        assert {name: values[number] for name, values in each.items()} == pytest.approx(
            {("average_precision" if name == "map" else name): value for name, value in alone.items()}, abs=1e-10
        )
    # the means of the images' own values are others: counts are summed first
    assert (
        abs(each["miou"].mean() - figures["miou"]) > 0.01
        and abs(each["pixel_accuracy"].mean() - figures["pixel_accuracy"]) > 0.01
    )


def test_by_class_and_for_json(from_red: Pattern) -> None:
    content = segmentation(from_red, VIEW, samples()).to_dict()
    of_class, _ = expected([samples()[0], samples()[3]])
    assert content["classes"]["0"]["images"] == 2
    assert content["classes"]["0"]["figures"] == pytest.approx(of_class, abs=1e-6)
    assert (
        content["per_image"]["object_as_object"]
        == segmentation(from_red, VIEW, samples()).column("object_as_object").tolist()
    )
    assert content["per_image"]["name"][1] == "picture 1" and content["left_out"] == []


def test_the_map_of_the_label(from_red: Pattern) -> None:
    """Its map is turned round by the explainer above."""
    data = samples()
    assert (
        counts_of(segmentation(from_red, VIEW, data, target="label").rows).tolist()
        != counts_of(segmentation(from_red, VIEW, data).rows).tolist()
    )
    unknown = [data[0], data[1]._replace(label=-1)]
    with pytest.raises(UserError, match="the class of picture 1 is not known"):
        segmentation(from_red, VIEW, unknown, target="label")
    with pytest.raises(UserError, match="label 5 of picture 1 is not one of the model's classes 0 to 4"):
        segmentation(from_red, VIEW, [data[0], data[1]._replace(label=5)], target="label")


@pytest.mark.parametrize("option", [{"target": "truth"}, {"explainer": "cam"}, {"batch_size": 0}])
def test_unknown_options(from_red: Pattern, option: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"{next(iter(option))} must be"):
        segmentation(from_red, VIEW, samples(), **option)


def test_images_that_cannot_be_read_are_named(from_red: Pattern) -> None:
    class Holes(list):
        def __getitem__(self, index: Any) -> Any:
            if index == 1:
                raise UserError("b.png cannot be read")
            return super().__getitem__(index)

    bad = samples()
    bad[2] = bad[2]._replace(mask=bad[2].mask[:-1])
    result = segmentation(from_red, VIEW, Holes(bad), batch_size=2)
    assert dict(result) == pytest.approx(expected([bad[0], bad[3]])[0], abs=1e-10)
    assert [(fault.name, fault.reason) for fault in result.left_out] == [
        ("number 1", "b.png cannot be read"),
        ("number 2", "picture 2: the mask is 17 x 10 pixels, the image 17 x 11 (width x height)."),
    ]
    with pytest.raises(UserError, match=r"none of the 1 images could be read: number 0, sample 0 must be"):
        segmentation(from_red, VIEW, [None])


def test_a_tensor_goes_to_the_model_as_it_is(from_red: Pattern) -> None:
    image = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    mask = np.zeros((HEIGHT, WIDTH), np.float32)
    mask[:4, :3] = 1
    result = segmentation(from_red, VIEW, [Sample(image, mask, 0)])
    red = image[:1]
    assert torch.equal(torch.tensor(counts_of(result.rows)), pixel_counts(red, torch.tensor(mask[None]) > 0, none(red)))
    other = Sample(torch.zeros(3, 5, 7), np.ones((5, 7), np.float32), 0, None, "small")
    assert segmentation(from_red, VIEW, [Sample(image, mask, 0), other]).left_out[0].name == "small"


def test_a_squashed_mask_takes_the_nearest_pixel_no_soft_edge() -> None:
    mask = np.array([[0.49, 0.5], [1, 0]], np.float32)
    _, found, ignored = squash(VIEW, Sample(np.zeros((2, 2, 3), np.uint8), mask, 0))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[:5, 8:] = expected[5:, :8] = (
        True  # the middle row 5 and column 8 (of 11 and 17) are nearer to the second half
    )
    assert np.array_equal(found.numpy(), expected) and not ignored.any()
