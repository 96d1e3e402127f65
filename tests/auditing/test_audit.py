"""The whole audit on models whose truth is known: one that reads the background, one that reads the object."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import relevit
from audit_pictures import (
    HEIGHT,
    VIEW,
    WIDTH,
    ByBackground,
    ByEither,
    ByObject,
    pictures,
    scene,
    with_inverted_masks,
    write,
)
from relevit.auditing.conditions import ALONE, CONDITIONS, ORIGINAL, OTHER, OWN
from relevit.auditing.folder import rows
from relevit.auditing.measure import looked
from relevit.auditing.models import audit_models
from relevit.auditing.pictures import AuditPictures, draw_balanced, find_pictures
from relevit.errors import UserError
from relevit.models.view import evaluation_view

CLASS_MAP = {"0": 0, "1": 1, "2": 2}


def unlabelled(made: AuditPictures) -> AuditPictures:
    """Pictures whose classes nobody knows."""
    return replace(made.of_classes([""] * len(made)), labels="predicted")


def test_a_model_that_reads_the_background_is_misled() -> None:
    found = audit_models({"it": (ByBackground(), VIEW)}, pictures(7))
    accuracy = {key: each.r1 for key, each in found.figures["it"].accuracy.items()}
    assert accuracy[ORIGINAL] == accuracy[OWN] == accuracy[ALONE] == accuracy["background_blurred"] == 100
    assert accuracy[OTHER] == 0 and accuracy["background_removed"] == pytest.approx(
        100 / 3
    )  # grey is nearest to class 1
    assert found.outcome("it") == "misled" and "a fall of 100.0 points" in found.sentences["it"][0]
    assert found.figures["it"].pull.rate == 100 and found.figures["it"].alone.rate == 100
    assert found.figures["it"].share is None and "no relevance maps" in found.sentences["it"][1]


def test_a_model_that_reads_the_object_is_not() -> None:
    found = audit_models({"it": (ByObject(), VIEW)}, pictures(34))
    accuracy = {key: each.r1 for key, each in found.figures["it"].accuracy.items()}
    assert [accuracy[key] for key in CONDITIONS if key != ALONE] == [100] * 5
    assert accuracy[ALONE] == pytest.approx(100 / 3)  # always the first class
    assert found.outcome("it") == "not misled" and "not misled by backgrounds" in found.sentences["it"][0]
    assert not found.figures["it"].alone.difference.settled


def test_a_few_pictures_reassure_nobody() -> None:
    assert audit_models({"it": (ByObject(), VIEW)}, pictures(4)).outcome("it") == "open"


def test_equal_backgrounds_mislead_nobody() -> None:
    """Where all backgrounds are alike there is nothing to be misled by, whatever the model reads."""
    found = audit_models({"it": (ByBackground(), VIEW)}, pictures(34, grey=120))
    assert found.outcome("it") == "not misled"
    assert found.figures["it"].contrast is not None and found.figures["it"].contrast.difference.value == 0
    assert not found.figures["it"].alone.difference.settled and found.figures["it"].pull.difference.low <= 0


def test_models_are_compared_with_the_first_pair_by_pair() -> None:
    models = {"first": (ByBackground(), VIEW), "second": (ByEither(), VIEW), "third": (ByObject(), VIEW)}
    found = audit_models(models, pictures(20), class_map=CLASS_MAP)
    behind = np.array(found.pictures.classes)[found.donors.other]
    by_hand = -100 * float((behind != "0").mean())  # the second one is misled by the darkest background alone
    assert found.change("second").value == pytest.approx(by_hand) and found.change("third").value == pytest.approx(-100)
    assert "less misled than first" in found.sentences["second"][2] and len(found.sentences["first"]) == 2
    content = found.to_dict()["models"]
    assert content["second"]["effect_minus_first"]["points"] == pytest.approx(by_hand, abs=1e-3)
    assert content["third"]["accuracy_minus_first"][OTHER]["points"] == 100 and "against" not in content["first"]


def test_classes_by_their_first_models_answers() -> None:
    """Where nobody knows the classes: the background's, for a model that reads it; the pictures then agree by definition."""
    unknown = unlabelled(pictures(6))
    found = audit_models({"it": (ByBackground(), VIEW)}, unknown)
    assert sorted(set(found.pictures.classes)) == ["0", "1", "2"] and found.figures["it"].accuracy[ORIGINAL].r1 == 100
    assert found.outcome("it") == "misled" and "gives the same answer" in found.sentences["it"][0]
    other = ByObject()
    other.num_classes = 4
    with pytest.raises(UserError, match="put the pictures into class folders"):
        audit_models({"it": (ByBackground(), VIEW), "other": (other, VIEW)}, unknown)
    with pytest.raises(UserError, match="names one class for all pictures"):
        audit_models({"it": (ByBackground(), VIEW)}, unlabelled(pictures(5, grey=30)))


def test_folders_of_one_class_lend_each_other_no_background() -> None:
    found = audit_models({"it": (ByObject(), VIEW)}, pictures(5), class_map={"0": 0, "1": 1, "2": 1})
    assert sorted(set(found.pictures.classes)) == ["0", "1 + 2"]
    assert all(
        found.pictures.classes[other] != own
        for other, own in zip(found.donors.other, found.pictures.classes, strict=True)
    )


def test_user_errors() -> None:
    with pytest.raises(UserError, match="there is one class"):
        audit_models({"it": (ByObject(), VIEW)}, pictures(5, classes=1))
    with pytest.raises(UserError, match=r"it: .*no class of the model"):
        audit_models({"it": (ByObject(), VIEW)}, pictures(2).of_classes(["0", "0", "1", "1", "7", "7"]))
    with pytest.raises(UserError, match="no model"):
        audit_models({}, pictures(2))


def test_pictures_without_background_are_left_out(tmp_path: Path) -> None:
    images, masks = write(tmp_path, 2)
    everything = Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8))
    everything.save(masks / "0" / "000.png")
    found = find_pictures(images, masks)
    assert len(found) == 5 and found.left_out[0][0] == "0/000.png" and found.names[0] == "0/001.png"
    np.testing.assert_array_equal(np.asarray(found.images[0].image), scene(0, 1).picture)
    for path in masks.rglob("*.png"):
        everything.save(path)
    with pytest.raises(UserError, match="less than 5% of the picture for the background"):
        find_pictures(images, masks)


def test_the_draw_is_balanced() -> None:
    classes = ["a"] * 30 + ["b"] * 3 + ["c"] * 11
    names = [str(number) for number in range(44)]
    drawn = draw_balanced(names, classes, 13, 0)
    assert [sum(classes[i] == name for i in drawn) for name in "abc"] == [5, 3, 5] and drawn == sorted(set(drawn))
    assert set(draw_balanced(names, classes, 7, 0)) <= set(drawn)
    assert draw_balanced(names, classes, 13, 1) != drawn and len(draw_balanced(names, classes, None, 0)) == 44


def test_rows_give_the_figures_again() -> None:
    found = audit_models({"it": (ByEither(), VIEW)}, pictures(9))
    table = list(csv.DictReader(io.StringIO(rows(found))))
    assert len(table) == 27
    for key in CONDITIONS:
        assert 100 * np.mean([row[key] == row["target"] for row in table]) == pytest.approx(
            found.figures["it"].accuracy[key].r1
        )
    assert all(row["other_background_of"][0] != row["class"] == row["own_background_of"][0] for row in table)


@pytest.fixture(scope="module")
def transformer() -> nn.Module:
    torch.manual_seed(5)
    sizes = {"img_size": (24, 32), "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
    model = timm.create_model("vit_tiny_patch16_224", **sizes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def test_relevance_on_the_background_is_the_rest_of_the_objects(transformer: nn.Module) -> None:
    torch.manual_seed(1)
    images, masks = torch.randn(3, 3, 24, 32), torch.rand(3, 24, 32)
    _, on_object = looked(transformer, images, masks, True)
    _, on_the_rest = looked(transformer, images, 1 - masks, True)
    np.testing.assert_allclose(on_object + on_the_rest, 1, atol=1e-9)
    assert (np.abs(on_object - on_the_rest) > 1e-3).all()
    _, everywhere = looked(transformer, images, torch.ones(3, 24, 32), True)
    np.testing.assert_allclose(everywhere, 1)


def test_share_and_area_of_a_transformer(transformer: nn.Module) -> None:
    """The share is that of the background: with masks inverted, its complement; the area, too."""
    view = evaluation_view(
        {
            "input_size": (3, 24, 32),
            "mean": (0.5,) * 3,
            "std": (0.5,) * 3,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
        }
    )
    transformer.train()
    made = pictures(3)
    found = audit_models({"it": (transformer, view)}, made)
    other = audit_models({"it": (transformer, view)}, with_inverted_masks(made))
    shares = found.observed["it"].share, other.observed["it"].share
    assert shares[0] is not None and shares[1] is not None
    np.testing.assert_allclose(shares[0] + shares[1], 1, atol=1e-6)
    transformer.eval()
    for number in range(9):
        seen = view.with_mask(*made.images[number][:2])
        relevance = relevit.relevance(transformer, seen.image[None])[0].detach().double().numpy()
        by_hand = (relevance * (1 - seen.mask.double().numpy())).sum() / relevance.sum()
        assert shares[0][number] == pytest.approx(by_hand, abs=1e-5) and abs(by_hand - 0.5) > 0.01
    transformer.train()
    np.testing.assert_allclose(found.observed["it"].area, 1 - 99 / (HEIGHT * WIDTH), atol=0.01)
    assert all(module.training for module in transformer.modules())
    share = found.figures["it"].share
    assert share is not None and share.value == pytest.approx(100 * shares[0].mean())


@pytest.mark.slow
def test_the_builtin_model_is_misled_and_less_after_fine_tuning() -> None:
    """Where the truth is known: the built-in model was trained on backgrounds that tell the class."""
    from relevit.auditing.pictures import builtin_pictures
    from relevit.data.builtin.digits import training_samples

    original = relevit.load("builtin")
    model, view = relevit.load("builtin")
    tuned = relevit.finetune(
        model,
        training_samples(per_class=20, seed=0),
        None,
        method="relevance+background_swap",
        epochs=6,
        lr=3e-5,
        resize=1.0,
        flip=0.0,
        previews=0,
        track=(),
        progress=False,
    ).model
    pictures = replace(whole := builtin_pictures(), images=whole.images.subset(range(800)))  # one of each object
    found = audit_models({"original": original, "tuned": (tuned, view)}, pictures)
    assert found.outcome("original") == "misled"
    contrasts = [found.figures[name].contrast for name in ("original", "tuned")]
    assert all(contrasts) and contrasts[0].difference.low > 20  # type: ignore[union-attr]
    assert found.change("tuned").high < 0 and "less misled than original" in found.sentences["tuned"][2]
    print(found.sentences)
