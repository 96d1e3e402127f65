"""Whether a classifier's head was ever trained, by its answers to images whose classes are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import entr, softmax
from scipy.stats import binom, norm, rankdata
from torch import Tensor, nn

from relevit.images import read_image
from relevit.models.families import logits_of
from relevit.models.working import working

MOST = 128  # images that are asked for
CHANCE_LEVEL, CLAIM_LEVEL = 0.01, 0.001  # of the test against chance; of the bound below which something is said
USEFUL = 0.75  # images of which even a weak head sets the right class in the better half of its classes
TALL = 1.2  # times the highest logit of a fresh head; two classes, whose highest is always 0.7071, stay below: 0.7073
_DRAWS = 999
Verdict = Literal["trained", "untrained", "unrelated", "unclear"]
WORDS: dict[Verdict, str] = {
    "trained": "better than chance",
    "untrained": "no better than chance",
    "unrelated": "no better than chance",
    "unclear": "too few images, or too poor answers, to tell it from chance",
}
# What a verdict makes one suspect, and what to do.
SUSPICIONS: dict[Verdict, tuple[str, str]] = {
    "untrained": (
        "the head looks untrained",
        "train it first, maps of an untrained head say nothing; if it was trained, see whether the class folders are the model's (--class-map)",
    ),
    "unrelated": (
        "the answers have nothing to do with the classes",
        "see whether the class folders are the model's classes (--class-map), and whether its head was trained with its backbone",
    ),
}


class HeadFigures(NamedTuple):
    """A head's answers: how many images and classes, the share of images whose class comes first, and in the better half; the mean
    entropy as a share of the highest, the mean height of the highest logit, and what follows, see `judge_head`."""

    images: int
    classes: int
    first: float
    better_half: float
    entropy: float
    height: float
    verdict: Verdict

    def __str__(self) -> str:
        return (
            f"the right class comes first for {self.first:.1%} of {self.images} images (chance {1 / self.classes:.2%}), in the "
            f"better half for {self.better_half:.0%}; entropy {self.entropy:.0%} of the highest: {WORDS[self.verdict]}"
        )


def judge_head(logits: Float[np.ndarray, "images classes"], labels: Int[np.ndarray, " images"]) -> HeadFigures:
    """Whether the answers to images of known classes are those of an untrained head.

    A fresh head's classes can be exchanged: whatever the backbone, the place of the right class among all is a matter of chance. So:

    1. "trained", if the right classes stand better than chance: at most 1 % of the ways to exchange the model's classes (of 999 drawn)
       set them as high. That counts each class once, however alike its images are. Where there are fewer than 100 ways
       (two classes, or so), the exact binomial test of the images whose class is in the better half, at 1 %, takes its place.
    2. "unclear", unless so few images have their class in the better half of the classes that a head which manages 3 of 4 images
       would have as few with a probability of at most 0.1 % (exact, binomial). Of 5 images nothing but 0 would do, of 10 at most 2,
       of 128 at most 79: few images, or a model that is merely poor on them, make no claim.
    3. "untrained", if the highest logit, in standard deviations above the mean of an image's logits, is on average at most 1.2 times
       what as many normal numbers have; it is entropy freed of the head's scale. Otherwise "unrelated": the model has learnt to
       answer, but not these labels; they may be another model's, or the class map is wrong.

    The built-in model (20 classes) on its seven sets, and a ViT-Ti of ImageNet on photographs of 90 classes; 20 draws of images each,
    fresh heads of normal weights of standard deviation 0.02, 1 / sqrt(features) and 1 (the verdict is the same for all):

    | head | images | trained | untrained | unrelated | unclear |
    | --- | --- | --- | --- | --- | --- |
    | built-in, its own (R@1 99 % to 59 %) | 128 | 100 % | 0 | 0 | 0 |
    | built-in, its own, objects elsewhere (R@1 23 %) | 128, 30, 10 | 100, 90, 60 % | 0 | 0 | 0, 10, 40 % |
    | built-in, fresh | 128, 30, 10 | 1 % | 94, 46, 4 % | 0 | 5, 54, 95 % |
    | built-in, labels exchanged | 128 | 0 | 0 | 94 % | 6 % |
    | ViT-Ti, its own (R@1 78 %) | 128, 30, 10 | 100 % | 0 | 0 | 0 |
    | ViT-Ti, fresh | 128, 30, 10 | 5, 0, 0 % | 95, 50, 5 % | 0 | 0, 50, 95 % |
    | ViT-Ti, labels exchanged | 128 | 0 | 0 | 100 % | 0 |
    | three ViTs of random weights, their own | 100 | 0 | 100 % | 0 | 0 |

    A fresh head of two classes on trained features may part them by luck: of 140 on the built-in model's, 61 % are "untrained", 18 %
    "trained", the rest "unclear"; of five classes, 94 % are "untrained". Of 20 with two classes on the
    few photographs of ViT-Ti, 80 % are "unclear". Entropy alone tells scales apart, not training: of the highest
    it is 99 %, 84 % and 9 % for the built-in model's fresh heads, 18 % to 58 % for its own; 90 %, 31 % and 1 % for ViT-Ti's, 13 % for its
    own. The highest logit is 1.9 standard deviations high for the former and 2.5 to 3.7 for its own, 3.2 and 5.9 of ViT-Ti.
    """
    count, classes = logits.shape
    numbers = np.asarray(logits, np.float64)
    ranks = rankdata(-numbers, axis=1, method="max")  # (images, classes), 1 for the highest; of equal ones the worst
    own = ranks[np.arange(count), labels]
    half = max(1, classes // 2)
    ahead = int((own <= half).sum())
    spread = numbers.std(axis=1, ddof=1)
    height = (numbers.max(axis=1) - numbers.mean(axis=1)) / np.where(spread > 0, spread, 1)
    usual = norm.ppf((classes - 0.375) / (classes + 0.25))  # Blom's approximation of the highest of normal numbers
    verdict: Verdict = "unrelated" if height.mean() > TALL * usual else "untrained"
    if _above_chance(ranks, labels, ahead, half / classes):
        verdict = "trained"
    elif binom.cdf(ahead, count, USEFUL) > CLAIM_LEVEL:
        verdict = "unclear"
    entropy = entr(softmax(numbers, axis=1)).sum(axis=1).mean() / math.log(classes)
    shares = float((own == 1).mean()), ahead / count
    return HeadFigures(count, classes, *shares, float(entropy), float(height.mean()), verdict)


def _above_chance(ranks: np.ndarray, labels: np.ndarray, ahead: int, chance: float) -> bool:
    """Whether the right classes' ranks are better than those of classes exchanged at random; `ahead` and its chance count images."""
    present, member = np.unique(labels, return_inverse=True)
    classes = ranks.shape[1]
    if math.perm(classes, len(present)) < 1 / CHANCE_LEVEL:
        return bool(binom.sf(ahead - 1, len(labels), chance) <= CHANCE_LEVEL)
    sums = np.zeros((len(present), classes))
    np.add.at(sums, member, ranks)
    rows, rng = np.arange(len(present)), np.random.default_rng(0)
    drawn = [sums[rows, rng.permutation(classes)[: len(rows)]].sum() for _ in range(_DRAWS)]
    as_good = np.count_nonzero(np.array(drawn) <= sums[rows, present].sum())
    return bool((1 + as_good) / (1 + _DRAWS) <= CHANCE_LEVEL)


def ask_head(
    model: nn.Module,
    view: Callable[[Any], Tensor],
    labelled: Sequence[tuple[Path, int]],
    *,
    progress: Callable[[int, int], object] | None = None,
    batch_size: int = 16,
) -> HeadFigures | None:
    """`judge_head` of a model's answers to image files with their classes: to 128 at most, of as many classes as can be.

    None without images, of a model with one class, and of answers that are no numbers.
    """
    chosen = [labelled[number] for number in spread([label for _, label in labelled], MOST)]
    answers = []
    with working(model) as device, torch.no_grad():
        for first in range(0, len(chosen), batch_size):
            pictures = [view(read_image(path)) for path, _ in chosen[first : first + batch_size]]
            answers.append(logits_of(model, torch.stack(pictures).to(device)).double().cpu())
            if progress is not None:
                progress(len(pictures), len(chosen))
    if not answers or answers[0].shape[1] < 2 or not torch.cat(answers).isfinite().all():
        return None
    return judge_head(torch.cat(answers).numpy(), np.array([label for _, label in chosen]))


def spread(labels: Sequence[int], most: int) -> list[int]:
    """Numbers of at most `most` images, sorted: one drawn of each class, then a second of each, and so on."""
    seen: dict[int, int] = {}
    turns = []
    for place, number in enumerate(np.random.default_rng(0).permutation(len(labels)).tolist()):
        turns.append((seen.setdefault(labels[number], 0), place, number))
        seen[labels[number]] += 1
    return sorted(number for *_, number in sorted(turns)[:most])
