"""The built-in benchmark on a few pictures and one epoch, for the demo and for jobs, which run in this process and take no time."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from relevit.data.builtin import digits as bench
from relevit.data.builtin.sets import of_pictures
from relevit.demonstration import pages
from relevit.demonstration import run as quick
from relevit.experiments import engines, jobs, records
from relevit.experiments.experiment import SHARE, Arm, Design, Experiment
from relevit.experiments.sources import builtin_work
from relevit.experiments.table import EXPERIMENTS


@cache
def few(name: str, split: str = "test", views: int = 3) -> bench.Pictures:
    """13 pictures of a set, of digits and shapes."""
    numbers = np.array([*range(9), *range(400, 404)])
    return bench.draw_pictures(bench.draw_objects("test", 1), numbers, bench.BACKGROUND_OF_SET[name], (5,), name=name)


def make_small(monkeypatch: pytest.MonkeyPatch, methods: tuple[str, ...] = quick.METHODS) -> None:
    """The demo on 1 sample a class, 1 epoch and 13 pictures of each set; the same pictures for jobs."""
    monkeypatch.setattr(builtin_work, "test_set", few)
    for module in (quick, builtin_work):
        monkeypatch.setattr(module, "builtin_set", lambda name, views: of_pictures(few(name)))
    monkeypatch.setattr(builtin_work, "EPOCHS", 1)
    monkeypatch.setattr(builtin_work, "VALIDATION_PER_CLASS", 1)
    for name, value in {"OBJECTS": 13, "PER_CLASS": 1, "METHODS": methods}.items():
        monkeypatch.setattr(quick, name, value)
    monkeypatch.setattr(quick, "read_rates", lambda: {f"{method}-1": 1e-4 for method in methods})


def make_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks stand, and only two sets are there: what is written twice is the same. Jobs run in this process; the experiment `small`
    is one fine-tuning with its rate and its figures."""
    stopped = SimpleNamespace(monotonic=lambda: 0.0, time=lambda: 0.0)
    for module in (quick, builtin_work, engines, jobs, records):
        monkeypatch.setattr(module, "time", stopped)
    for module in (quick, pages, builtin_work):
        monkeypatch.setattr(module, "TEST_SETS", ("in_distribution", "background_shuffled"))
    monkeypatch.setattr(jobs, "make_engine", lambda name, workers, folder, options: nullcontext(Inline()))
    arm = Arm("relevance", per_class=1, rates=(1e-4,))
    design = Design((arm,), ("background_shuffled", SHARE))
    monkeypatch.setattr(EXPERIMENTS, "builtin", {"small": Experiment("one fine-tuning", "Table 9", design)})


class Inline:
    """An engine that runs each job at once, in this process."""

    def __init__(self) -> None:
        self.replies: list[tuple[str, Any]] = []

    @property
    def free(self) -> int:
        return 1 - len(self.replies)

    def submit(self, key: str, request: Mapping[str, Any]) -> None:
        self.replies.append((key, engines.perform(request)))

    def wait(self) -> list[tuple[str, Any]]:
        replies, self.replies = self.replies, []
        return replies
