"""data/benchmarks: every list of classes, for size, range and known pairs; and where models of several ImageNets have them."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from timm.data import ImageNetInfo

from benchmark_trees import Classifier
from relevit.data.benchmarks.imagenet_classes import (
    ImageNetAnswers,
    ImageNetCandidates,
    classes_of,
    index_of,
    positions,
    wnids,
)
from relevit.data.benchmarks.imagenet_real import read_real
from relevit.data.benchmarks.table import KINDS, classes_of_kind
from relevit.data.reading import packaged
from relevit.errors import UserError


def test_the_order_of_imagenets_classes() -> None:
    assert len(wnids()) == len(set(wnids())) == 1000 and list(wnids()) == sorted(wnids())
    known = {"n01440764": 0, "n01443537": 1, "n02123159": 282, "n02504458": 386, "n07753592": 954, "n15075141": 999}
    assert {wnid: index_of()[wnid] for wnid in known} == known


@pytest.mark.parametrize(("subset", "first"), [("a", (6, 11, 13)), ("r", (1, 2, 4))])
def test_the_200_classes_agree_with_timms_other_list(subset: str, first: tuple[int, ...]) -> None:
    indices = resources.files("timm.data") / "_info" / f"imagenet_{subset}_indices.txt"
    classes = classes_of(subset)
    assert list(classes) == sorted(map(int, indices.read_text().split()))
    assert len(set(classes)) == 200 and classes[:3] == first and 0 <= min(classes) and max(classes) < 1000


def test_the_two_sets_share_some_classes_only() -> None:
    assert 0 < len(set(classes_of("a")) & set(classes_of("r"))) < 200


def test_si_score_names_are_those_of_their_classes() -> None:
    names = packaged("si_score_classes.json")
    assert len(names) == len(set(names.values())) and all(
        type(index) is int and 0 <= index < 1000 for index in names.values()
    )
    info = ImageNetInfo()
    for name, index in names.items():
        described = set(re.findall(r"[a-z]+", info.index_to_description(index).lower()))
        words = set(re.findall(r"[a-z]+", name.lower()))
        assert described & (words | {word.removesuffix("s") for word in words}), name
    # names that ImageNet has twice, or that mean something else there
    assert [names[each] for each in ("kite", "computer mouse", "seat belt", "pig", "ambulance")] == [
        21,
        673,
        785,
        341,
        407,
    ]


def test_the_nine_kinds() -> None:
    kinds = classes_of_kind()
    assert len(kinds) == len(KINDS) == 9
    everything = [index for kind in kinds for index in kind]
    assert len(everything) == len(set(everything)) == 370 and set(everything) <= set(range(1000))
    known = {151: "dog", 7: "bird", 817: "wheeled vehicle", 33: "reptile", 300: "insect", 402: "musical instrument", 365: "primate", 0: "fish", 291: "carnivore"}  # fmt: skip
    assert {index: KINDS[next(n for n, kind in enumerate(kinds) if index in kind)] for index in known} == known
    assert not {25, 954, 999} & set(everything)  # a salamander, a banana, toilet paper: none of the nine


def test_reassessed_labels_of_timm() -> None:
    labels = read_real(None)
    assert len(labels) == 50_000 and all(0 <= each < 1000 for row in labels for each in row)
    assert sum(not row for row in labels) == 50_000 - 46_837  # images that the authors could label


@pytest.mark.parametrize(
    ("count", "subset", "lacking"),
    [(1000, "imagenet-1k", 0), (11821, "imagenet-12k", 7), (11221, "imagenet-21k-miil", 9), (21841, "imagenet-22k", 1), (21842, "imagenet-22k-ms", 0), (21843, "imagenet-21k-goog", 1)],
)  # fmt: skip
def test_models_of_every_imagenet_have_the_classes_at_their_wnid(count: int, subset: str, lacking: int) -> None:
    own = ImageNetInfo(subset).label_names()
    found = positions(Classifier(count))
    assert found is not None and len(found) == 1000 and sum(place is None for place in found) == lacking
    for wnid, place in zip(wnids(), found, strict=True):
        assert wnid not in own if place is None else own[place] == wnid
    competing = ImageNetCandidates()(Classifier(count))
    if count == 1000:
        assert competing is None
    else:
        assert competing == tuple(sorted(place for place in found if place is not None))


def test_a_model_with_wnids_of_its_own_is_asked_by_them() -> None:
    model = Classifier(3, ["n15075141", "n01440764", "n01443537"])
    found = positions(model)
    assert found is not None and (found[999], found[0], found[1], found[2]) == (0, 1, 2, None)
    answers = ImageNetAnswers("set", [(1,), (999,)], ["a", "b"])
    assert answers(model) == [(2,), (0,)]
    with pytest.raises(UserError, match=r"set: the model has no class for n01484850"):
        ImageNetAnswers("set", [(1,), (2,)], ["b", "a"])(model)


def test_a_larger_imagenet_misses_what_it_lacks() -> None:
    teddy = index_of()["n04399382"]
    answers = ImageNetAnswers("set", [(teddy,), (teddy, 0), (0,)], ["a", "b", "c"])
    fish = ImageNetInfo("imagenet-21k-goog").label_names().index("n01440764")
    assert answers(Classifier(21843)) == [(), (fish,), (fish,)]
    assert answers(Classifier(1000)) == [(teddy,), (teddy, 0), (0,)]


def test_other_models_need_a_class_map() -> None:
    answers = ImageNetAnswers("imagenet-x", [(5,), (6,)], ["n01", "n02"])
    with pytest.raises(UserError, match=r"imagenet-x has ImageNet's classes, but the model has 20 classes.*class map"):
        answers(Classifier(20))
    assert answers(Classifier(20), {"n01": 17, "n02": 3}) == [(17,), (3,)]
    with pytest.raises(UserError, match="n02"):
        answers(Classifier(20), {"n01": 17})
    assert answers(Classifier(1000), {"n01": 17, "n02": 3}) == [(5,), (6,)]  # an ImageNet model needs none
    assert ImageNetCandidates((3, 4))(Classifier(20)) is None
    with pytest.raises(UserError, match="the model has no classes"):
        answers(Classifier(0))


def test_candidates_are_ascending_places_in_the_model() -> None:
    model = Classifier(4, ["n01443537", "n01440764", "n15075141", "other"])
    assert ImageNetCandidates((0, 1))(model) == (0, 1)
    assert ImageNetCandidates((1, 999))(model) == (0, 2)
    assert ImageNetCandidates((7, 9))(Classifier(1000)) == (7, 9)
