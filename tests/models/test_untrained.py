"""Whether a head was trained, by its answers: planted fresh, trained, poor and misnamed ones, and few images."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations
from math import comb
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from grey_model import VIEW, Grey
from relevit.data.builtin.sets import builtin_set
from relevit.models.families import features
from relevit.models.loading import load
from relevit.models.untrained import SUSPICIONS, ask_head, judge_head, spread

CLASSES, IMAGES = 23, 92
LABELS = np.arange(IMAGES) % CLASSES


def answers(
    signal: float, scale: float = 1.0, seed: int = 0, labels: Sequence[int] | np.ndarray = LABELS
) -> np.ndarray:
    """Logits of normal noise, that of the right class raised by `signal`."""
    logits = np.random.default_rng(seed).normal(size=(len(labels), CLASSES))
    logits[np.arange(len(labels)), labels] += signal
    return scale * logits


def planted(ahead: int, images: int, classes: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    """Logits where the right class is the last of the better half for `ahead` images, the very last for the others."""
    labels = np.arange(images) * 7 % classes
    logits = -np.tile(np.arange(classes, dtype=float), (images, 1))
    for image, label in enumerate(labels):
        place = classes // 2 - 1 if image < ahead else classes - 1
        logits[image, [label, place]] = logits[image, [place, label]]
    return logits, labels


@pytest.mark.parametrize("scale", [0.02, 1.0, 50.0])
def test_a_fresh_head_is_untrained_at_every_scale(scale: float) -> None:
    verdicts = [judge_head(answers(0, scale, seed), LABELS).verdict for seed in range(10)]
    assert verdicts.count("untrained") >= 9 and "unrelated" not in verdicts


def test_a_fresh_head_that_tells_images_apart_is_untrained() -> None:
    """All images of a class get the same answers, as on the features of a trained backbone."""
    verdicts = []
    for seed in range(10):
        of_class = np.random.default_rng(seed).normal(size=(CLASSES, CLASSES))
        verdicts.append(judge_head(of_class[LABELS], LABELS).verdict)
    assert verdicts.count("untrained") >= 7 and "unrelated" not in verdicts


@pytest.mark.parametrize(("signal", "images"), [(0.8, IMAGES), (2, IMAGES), (2, 10), (5, 10), (8, 5)])
def test_a_trained_head_is_never_called_untrained(signal: float, images: int) -> None:
    for seed in range(10):
        figures = judge_head(answers(signal, 1, seed, LABELS[:images]), LABELS[:images])
        assert figures.verdict == "trained" or (images == 10 and signal == 2 and figures.verdict == "unclear")


def test_a_trained_head_with_other_labels_is_unrelated() -> None:
    figures = judge_head(answers(5), (LABELS + 11) % CLASSES)
    assert figures.verdict == "unrelated" and figures.height > 3


def test_a_head_of_zeros_is_untrained() -> None:
    figures = judge_head(np.zeros((IMAGES, CLASSES)), LABELS)
    assert figures.verdict == "untrained" and figures.entropy == pytest.approx(1, abs=1e-12)
    assert (figures.first, figures.better_half, figures.height) == (0, 0, 0)


@pytest.mark.parametrize(("images", "most"), [(4, -1), (5, 0), (10, 2), (128, 79)])
def test_few_images_make_no_claim(images: int, most: int) -> None:
    """The binomial bound in whole numbers: as few of `images`, where each is in the better half with probability 3/4."""
    share = Fraction(3, 4)
    terms = [comb(images, k) * share**k * (1 - share) ** (images - k) for k in range(most + 2)]
    assert sum(terms[:-1]) <= Fraction(1, 1000) < sum(terms)
    assert judge_head(*planted(most + 1, images)).verdict in ("unclear", "trained")
    if most >= 0:
        assert judge_head(*planted(most, images)).verdict == "untrained"


def test_the_figures_by_hand() -> None:
    logits = np.log([[0.5, 0.25, 0.25, 1e-30], [0.25, 0.25, 0.25, 0.25]])
    figures = judge_head(logits, np.array([0, 3]))
    assert (figures.images, figures.classes, figures.first, figures.better_half) == (2, 4, 0.5, 0.5)
    assert figures.entropy == pytest.approx((0.75 + 1) / 2)
    z = (logits[0].max() - logits[0].mean()) / np.sqrt(((logits[0] - logits[0].mean()) ** 2).sum() / 3)
    assert figures.height == pytest.approx(z / 2) and figures.verdict == "unclear"


@pytest.mark.parametrize("seed", range(6))
def test_chance_is_that_of_all_exchanges(seed: int) -> None:
    """Against every way to give three of seven classes to the labels."""
    labels = np.repeat([1, 4, 6], 5)
    logits = np.random.default_rng(seed).normal(size=(15, 7))
    logits[np.arange(15), labels] += [0.0, 0.2, 3.0][seed % 3]
    places = (-logits).argsort(axis=1).argsort(axis=1)
    sums = [
        sum(places[labels == label, to].sum() for label, to in zip((1, 4, 6), ways, strict=True))
        for ways in permutations(range(7), 3)
    ]
    own = sum(places[labels == label, label].sum() for label in (1, 4, 6))
    exact = np.mean(np.array(sums) <= own)
    assert not 0.005 < exact < 0.015  # where 999 draws might differ
    assert (judge_head(logits, labels).verdict == "trained") == (exact <= 0.01)


def test_two_classes_are_judged_by_their_images() -> None:
    def of(right: int, images: int) -> str:
        labels = np.arange(images) % 2
        wrong = np.arange(images) >= right
        return judge_head(np.eye(2)[np.where(wrong, 1 - labels, labels)], labels).verdict

    assert of(18, 20) == "trained" and of(70, 100) == "trained"
    assert of(12, 20) == "unclear" and of(50, 100) == "untrained"


def test_images_of_all_classes_are_asked_for() -> None:
    labels = [0] * 500 + [1] * 3 + [2]
    chosen = spread(labels, 7)
    assert chosen == sorted(set(chosen)) and [labels[number] for number in chosen].count(0) == 3
    assert chosen[-4:] == [500, 501, 502, 503] or {503} < set(chosen)
    assert spread(labels, 7) == chosen and spread([], 7) == [] and len(spread(labels, 1000)) == len(labels)


def test_a_model_is_asked_about_files(tmp_path: Path) -> None:
    """Grey answers with the grey divided by 10."""
    labelled = []
    for label in range(23):
        Image.new("RGB", (8, 8), (10 * label,) * 3).save(tmp_path / f"{label}.png")
        labelled.append((tmp_path / f"{label}.png", label))
    model, told = Grey().train(), []
    figures = ask_head(model, VIEW, labelled, progress=lambda more, total: told.append((more, total)))
    assert figures is not None and (figures.verdict, figures.first, figures.images) == ("trained", 1.0, 23)
    assert model.training and told == [(16, 23), (7, 23)] and model.seen == 23
    other = ask_head(model, VIEW, [(path, (label + 11) % 23) for path, label in labelled])
    assert other is not None and other.verdict in SUSPICIONS and other.first == 0
    assert ask_head(model, VIEW, []) is None
    assert ask_head(Grey(float("nan")), VIEW, labelled) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["in_distribution", "background_unseen", "location"])
def test_the_builtin_model_and_fresh_heads_on_its_features(name: str) -> None:
    """R@1 from 99 % to 23 %."""
    model, view = load("builtin")
    images = builtin_set(name, 1).limited(128)
    samples = [images[number] for number in range(128)]
    labels = np.array([sample.label for sample in samples])
    with torch.no_grad():
        pictures = torch.stack([view(sample.image) for sample in samples])
        seen, own = features(model, pictures), model(pictures)
    assert judge_head(own.numpy(), labels).verdict == "trained"
    verdicts = []
    for seed in range(20):
        head = torch.randn(20, seen.shape[1], generator=torch.Generator().manual_seed(seed)) * [0.02, 1][seed % 2]
        verdicts.append(judge_head((seen @ head.T).numpy(), labels).verdict)
    assert verdicts.count("untrained") >= 16 and "unrelated" not in verdicts
