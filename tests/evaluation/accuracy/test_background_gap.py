"""The background gap: by hand, against the plain difference of accuracies, paired by object, read from composed sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pixel_model import plain_view
from relevit.data.benchmarks import class_folders, composed_sets
from relevit.data.composition.composed_sets import prepare, write_compositions
from relevit.errors import UserError
from relevit.evaluation import evaluate
from relevit.evaluation.accuracy.background_gap import background_gap
from relevit.evaluation.accuracy.recall import Accuracy
from relevit.statistics.interval import wilson

VIEW = plain_view(16, 16)
GREYS = (30, 130, 230)  # of the background of the classes 0, 1, 2


def accuracy(hits: list[int], objects: list[str]) -> Accuracy:
    hit = np.array(hits, bool)
    return Accuracy(hit, hit, np.array(["c"] * len(hits)), np.array(objects))


class ByBackground(nn.Module):
    """Answers with the class whose background has the grey of the upper left corner."""

    num_classes = 3

    def forward(self, images: Tensor) -> Tensor:
        greys = images.new_tensor(GREYS) / 255
        return -(images[:, :1, 0, 0] - greys).abs()


class ByObject(nn.Module):
    """Answers with the class whose colour the object in the middle has: red, green, blue."""

    num_classes = 3

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :, 8, 8]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five pictures in each of three classes: a square of the class's colour on the class's grey."""
    for label, grey in enumerate(GREYS):
        for number in range(5):
            image, mask = np.full((16, 16, 3), grey, np.uint8), np.zeros((16, 16), np.uint8)
            mask[5:11, 6:11] = 255
            image[mask > 0] = 0
            image[mask > 0, label] = 200 + number
            for kind, array in (("images", image), ("masks", mask)):
                path = tmp_path / kind / str(label) / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return tmp_path


@pytest.fixture
def composed(pictures: Path) -> Path:
    sets = ["original", "mixed_same", "mixed_rand", "mixed_next", "only_bg"]
    prepared = prepare(pictures / "images", masks=pictures / "masks", sets=sets, size=16, repeats=3, seed=1)
    write_compositions(pictures / "sets", prepared)
    return pictures / "sets"


def test_by_hand() -> None:
    # a: 1 and 0.5 -> +50; b: 0.5 and 0.5 -> 0; c: 0 and 1 -> -100; d and e are in one set only
    same = accuracy([1, 1, 1, 0, 0, 1], ["a", "a", "b", "b", "c", "d"])
    random = accuracy([0, 1, 1, 1, 0, 0], ["a", "a", "c", "b", "b", "e"])
    gap = background_gap(same, random)
    assert gap is not None and gap.count == 3 and gap.value == pytest.approx((50 + 0 - 100) / 3)
    assert -100 <= gap.low < gap.value < gap.high <= 50


def test_equal_numbers_give_the_difference_of_accuracies() -> None:
    rng = np.random.default_rng(5)
    objects = [f"o{number}" for number in range(83) for _ in range(3)]
    same, random = (accuracy(list(rng.random(249) < share), objects) for share in (0.8, 0.55))
    gap = background_gap(same, random)
    assert (
        gap is not None and gap.value == pytest.approx(same.r1 - random.r1) and gap.value > 10
    )  # not the other way round


def test_pairing_narrows_the_interval() -> None:
    """Half of the objects are always hit, half never; on other backgrounds the same but for few."""
    objects = [f"{number:03}" for number in range(101)]
    hits = [number % 2 for number in range(101)]
    fewer = [hit and number > 9 for number, hit in enumerate(hits)]
    gap = background_gap(accuracy(hits, objects), accuracy(fewer, objects[:]))
    assert gap is not None and gap.value == pytest.approx(100 * 5 / 101)
    assert gap.high - gap.low < 10  # two independent proportions of 101 images: 27
    # the order of the images does not matter
    backwards = background_gap(accuracy(hits, objects), accuracy(fewer[::-1], objects[::-1]))
    assert backwards == gap


def test_where_all_objects_agree_the_interval_has_a_width() -> None:
    objects = list("abcdefg")
    gap = background_gap(accuracy([1] * 7, objects), accuracy([1] * 7, objects))
    unseen = 100 * wilson(0, 7)[1]
    assert gap is not None and gap.value == 0 and gap.ends == pytest.approx((-unseen, unseen))
    full = background_gap(accuracy([1] * 7, objects), accuracy([0] * 7, objects))
    assert full is not None and full.value == 100 and full.ends == pytest.approx((100 - 2 * unseen, 100))


def test_without_shared_objects_there_is_no_gap() -> None:
    one = accuracy([1, 0], ["a", "b"])
    assert background_gap(one, accuracy([1], ["c"])) is None
    assert background_gap(one, Accuracy(one.hit1, one.hit5, one.groups)) is None


def test_intervals_of_accuracies_are_clustered_by_object() -> None:
    objects = [f"o{number}" for number in range(11) for _ in range(50)]
    hits = [number % 2 for number in range(11) for _ in range(50)]
    clustered = accuracy(hits, objects)
    plain = Accuracy(clustered.hit1, clustered.hit5, clustered.groups)
    width, narrow = (figure.high - figure.low for figure in (clustered.r1_interval, plain.r1_interval))
    assert width > 5 * narrow  # 11 objects, not 550 images
    assert accuracy([1] * 550, objects).r1_interval.ends == pytest.approx(tuple(100 * end for end in wilson(11, 11)))
    assert accuracy([0] * 550, objects).r1_interval.ends == pytest.approx(tuple(100 * end for end in wilson(0, 11)))
    assert clustered.only(np.arange(550) < 60).objects.tolist() == objects[:60]


def test_evaluate_gives_the_gap_of_composed_sets(composed: Path, tmp_path: Path) -> None:
    models = {"background": (ByBackground(), VIEW), "object": (ByObject(), VIEW)}
    report = evaluate(models, {"mine": composed})
    assert list(report.accuracies) == [
        f"mine/{name}" for name in ("original", "only_bg", "mixed_same", "mixed_rand", "mixed_next")
    ]
    figures = {name.split("/")[1]: report.accuracy("background", name).r1 for name in report.accuracies}
    assert figures["mixed_same"] == figures["original"] == figures["only_bg"] == 100 and figures["mixed_next"] == 0
    assert 0 < figures["mixed_rand"] < 70
    gap = report.gaps["mine"]["background"]
    assert gap.value == pytest.approx(100 - figures["mixed_rand"]) and gap.count == 15
    assert gap.low < gap.value < gap.high
    assert report.gaps["mine"]["object"].value == 0  # knows the object on any background
    assert all(report.accuracy("object", f"mine/{name}").r1 == 100 for name in ("mixed_rand", "mixed_next"))
    report.save(tmp_path / "figures.json")
    saved = json.loads((tmp_path / "figures.json").read_text())
    assert saved["background_gap"]["mine"]["background"]["objects"] == 15
    assert saved["background_gap"]["mine"]["background"]["background_gap"] == pytest.approx(gap.value, abs=1e-3)


def test_unreadable_pictures_leave_the_pairs_right(composed: Path) -> None:
    """Without the first pictures of a set, the others still belong to their objects."""
    for file in ("0/0_b1.png", "1/2_b2.png"):
        (composed / "mixed_rand" / "images" / file).write_bytes(b"broken")
    report = evaluate((ByBackground(), VIEW), {"mine": composed})
    measured = report.accuracy(benchmark="mine/mixed_rand")
    assert len(measured) == 43 and len(report.unreadable["mine/mixed_rand"]) == 2
    assert measured.objects is not None
    shown = [file for file in sorted((composed / "mixed_rand" / "images").rglob("*.png")) if file.stat().st_size > 6]
    assert measured.objects.tolist() == [f"{file.parent.name}/{file.stem.split('_')[0]}.png" for file in shown]


def test_folders_of_sets_are_checked_before_anything_is_measured(composed: Path) -> None:
    assert composed_sets(composed.parent / "images") is None
    report = evaluate((ByObject(), VIEW), composed / "mixed_next" / "images")
    assert report.accuracy().r1 == 100 and not report.gaps
    with pytest.raises(UserError, match="one of several composed sets"):
        composed_sets(composed / "mixed_next")
    extra = composed / "mixed_same" / "images" / "2" / "mine.png"
    Image.new("RGB", (16, 16)).save(extra)
    with pytest.raises(UserError, match=r"mine\.png is not in"):
        composed_sets(composed)["mixed_same"]()
    extra.unlink()
    (composed / "mixed_same" / "images" / "2" / "3_b1.png").unlink()
    with pytest.raises(UserError, match=r"1 pictures .* missing, such as .*3_b1\.png: run"):
        composed_sets(composed)["mixed_same"]()
    (composed / "manifest.csv").unlink()
    with pytest.raises(UserError, match="not finished"):
        evaluate((ByObject(), VIEW), composed)


def test_class_folders_know_their_objects_by_file(composed: Path) -> None:
    folder = composed / "original" / "images"
    assert class_folders(folder).objects is None
    known = class_folders(folder, objects={folder / "0" / "1.png": "one"})
    assert known.objects is not None and known.objects[1] == "one" and known.objects[0] == str(folder / "0" / "0.png")
    assert torch.is_tensor(VIEW(known[0].image))
