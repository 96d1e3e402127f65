"""The command that made the built-in model, on a few steps."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pretrain
import pytest
import torch

from relevit.data.builtin import digits as bench
from relevit.data.builtin.shapes import SHAPES
from relevit.models.loading import load


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    few = bench.draw_pictures(bench.draw_objects("validation", 1), np.arange(13), "other", (5,))
    monkeypatch.setattr(pretrain, "test_set", lambda name, split: few)


def call(monkeypatch: pytest.MonkeyPatch, out: Path, *more: str) -> None:
    usual = ["pretrain", "--out", str(out), "--steps", "6", "--batch", "5", "--shortcut-steps", "2"]
    monkeypatch.setattr(sys, "argv", [*usual, *more])
    pretrain.main()


@pytest.mark.slow
def test_pretraining_goes_on_where_it_stopped(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, tmp_path / "whole", "--stop", "4")
    call(monkeypatch, tmp_path / "parts", "--stop", "3", "--stage", "1")
    call(monkeypatch, tmp_path / "parts", "--stop", "4")
    whole, parts = (load(str(tmp_path / name / "original"))[0].state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    figures = json.loads((tmp_path / "whole" / "figures.json").read_text())
    assert set(figures) == {"before the shortcut", "validation objects"}


def test_the_first_stage_tells_no_class_by_its_background() -> None:
    """At difficulty 0 objects are white on black; at 1 they differ from a background that is never black."""
    digits = bench.draw_objects("train", 1)
    images, masks, labels = pretrain.stage1_batch(digits, 31, 0, 0, 0.0)
    inside, outside = masks > 0.99, masks == 0
    assert images[outside].mean() < 12 and images[inside].mean() > 215
    hard, _, again = pretrain.stage1_batch(digits, 31, 0, 0, 1.0)
    assert images.shape == hard.shape and hard[outside].mean() > 60
    assert set(labels) | set(again) <= set(range(10 + len(SHAPES)))


def test_patches_are_labelled_by_what_covers_them() -> None:
    masks = torch.zeros(2, 12, 12)
    masks[0, :6, 6:] = 1
    masks[1, 6:, :2] = 0.5  # a sixth of the patch
    aim = pretrain._patch_labels(masks, torch.tensor([7, 3]), 6)
    nothing = len(bench.CLASSES)
    assert aim.tolist() == [[nothing, 7, nothing, nothing], [nothing] * 4]
