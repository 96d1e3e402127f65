"""report/model_facts.py: names of classes, and what `relevit info` tells."""

import pytest
import timm
import torch
from torch import nn

from foreign_models import transformers_model
from relevit.errors import UserError
from relevit.explainers.cost import step_cost
from relevit.models.model_facts import class_name, class_number, model_facts


def build(**arguments: object) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model("vit_tiny_patch16_224", embed_dim=12, depth=2, num_heads=3, **arguments)


def test_imagenet_classes_have_names() -> None:
    model = build()
    assert class_name(model, 0) == "tench (n01440764, 0)"
    assert class_number(model, "n01440764") == class_number(model, "Tench") == class_number(model, "0") == 0
    with pytest.raises(UserError, match="several classes"):
        class_number(model, "crane")
    for wrong in ("1000", "no such thing", "-1"):
        with pytest.raises(UserError, match="class"):
            class_number(model, wrong)


def test_labels_of_a_checkpoint_come_first() -> None:
    model = build(num_classes=3)
    model.pretrained_cfg = {**model.pretrained_cfg, "num_classes": 3, "label_names": ["9", "star", "2"]}
    assert [class_name(model, i) for i in range(3)] == ["9 (0)", "star (1)", "2"]
    assert class_number(model, "star") == 1 and class_number(model, "9") == 0 and class_number(model, "1") == 1


def test_without_names_the_index_is_shown() -> None:
    assert class_name(build(num_classes=7), 5) == "5"


def test_facts() -> None:
    facts = dict(model_facts(build(img_size=(32, 48), num_classes=7)))
    assert facts["supported"] == "yes" and facts["tokens"] == "1 prefix + 2 x 3 patches = 7"
    assert facts["blocks"] == "2 with 3 heads" and "class token" in facts["readout"] and facts["classes"] == "7"
    assert facts["input"].startswith("32 x 48") and facts["resize and crop"].endswith("centre crop 32 x 48")


def test_facts_in_another_size_and_the_papers_preprocessing() -> None:
    model = build(dynamic_img_size=True)
    assert dict(model_facts(model, input_size=(64, 32)))["tokens"] == "1 prefix + 4 x 2 patches = 9"
    refused = dict(model_facts(build(), input_size=(64, 32)))
    assert "64 x 32" in refused["tokens"] and "input" not in refused
    paper = dict(model_facts(model, protocol="paper"))
    assert "248 x 248 (bicubic)" in dict(model_facts(model))["resize and crop"]
    assert "256 x 256 (bilinear)" in paper["resize and crop"] and paper["normalisation"].startswith("mean 0.5 0.5 0.5")


def test_facts_of_what_is_not_supported() -> None:
    with torch.device("meta"):
        facts = dict(model_facts(timm.create_model("resnet18")))
    assert facts["supported"].startswith("no:") and "tokens" not in facts and facts["classes"] == "1000"


def test_facts_of_other_libraries_and_the_cost_of_a_step() -> None:
    model = transformers_model("Dinov2")
    facts = dict(model_facts(model))
    assert (
        facts["library"] == "hf" and facts["classes"] == "7, kind 0 to kind 6" and facts["blocks"] == "3 with 3 heads"
    )
    assert facts["readout"] == "50% the row of the class token, 50% the mean over the rows of the patches"
    assert "transformers" in facts["readout known"]
    before = [parameter.grad for parameter in model.parameters()]
    seconds, memory = step_cost(model, 42, 42)
    twice, more = step_cost(model, 42, 84)
    assert seconds > 0 and twice > 0 and more > memory > 10_000
    assert [parameter.grad for parameter in model.parameters()] == before
