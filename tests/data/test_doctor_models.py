"""What `relevit doctor` tells of a model: its preprocessing, its weights, whether it is supported."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from relevit.diagnosis import Finding, Where, examine_model


def found_in(model: nn.Module, **options: object) -> dict[str, Finding]:
    return {finding.kind: finding for finding in examine_model(model, **options).findings}  # type: ignore[arg-type]


def build(name: str, **arguments: object) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, **arguments)


def test_a_supported_model_with_its_own_preprocessing_is_fine() -> None:
    for name in ("deit_small_patch16_224.fb_in1k", "vit_small_patch16_224.augreg_in21k_ft_in1k"):
        diagnosis = examine_model(build(name), name=name)
        assert diagnosis.findings == [] and diagnosis.facts["supported"] == "yes"
        assert diagnosis.facts["tokens"] == "1 prefix + 14 x 14 patches = 197"


def test_the_papers_normalisation_of_a_model_with_another() -> None:
    found = found_in(build("deit_small_patch16_224.fb_in1k"), protocol="paper", name="deit")
    assert found["normalisation differs"].level == "warning"
    assert found["normalisation differs"].where == [
        Where(
            "deit",
            "trained with mean 0.485 0.456 0.406, std 0.229 0.224 0.225; configured: mean 0.5 0.5 0.5, std 0.5 0.5 0.5",
        )
    ]
    assert found["resize and crop differ"].level == "note"
    detail = found["resize and crop differ"].where[0].detail
    assert detail.startswith("the model's own: bicubic, crop 0.9 ") and "configured: bilinear, crop 0.875 " in detail


def test_the_papers_normalisation_of_a_model_that_was_trained_so() -> None:
    found = found_in(build("vit_small_patch16_224.augreg_in21k_ft_in1k"), protocol="paper")
    assert set(found) == {"resize and crop differ"}


@pytest.mark.parametrize(
    "name", ["resnet18.a1_in1k", "swin_tiny_patch4_window7_224.ms_in1k", "vit_small_patch16_224.dino"]
)
def test_an_unsupported_model_stops_a_run(name: str) -> None:
    diagnosis = examine_model(build(name))
    fault = diagnosis.findings[0]
    assert diagnosis.stops and (fault.level, fault.kind) == ("fault", "unsupported model")
    assert "supported" in fault.where[0].detail or "no classifier" in fault.where[0].detail


def test_weights_that_are_nowhere_and_heads_that_are_new() -> None:
    bare = build("vit_tiny_patch16_224", num_classes=7)
    assert (
        "the weights have 1000 classes, the model 7" in found_in(bare)["the head is new and untrained"].where[0].detail
    )
    assert found_in(bare, weights="file") == {}
    assert "the head is new and untrained" in found_in(bare, weights="checkpoint")
    bare.pretrained_cfg = {"num_classes": 7}
    found = found_in(bare)
    assert set(found) == {"no pretrained weights"} and found["no pretrained weights"].level == "fault"
    assert found_in(bare, weights="checkpoint") == {}
