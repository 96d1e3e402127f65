"""What an experiment yields: rows of figures beside the published ones, and findings about the paper's claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from relevit.experiments.jobs import Job, Outcome

MEASURED = "measured"


@dataclass(frozen=True)
class Row:
    """One cell of a table.

    row: the model or the method; column: the test set. figure: r1, r5, ...; group: of the classes. ours, low, high: in
    percent with the 95% interval, None unless state is "measured". seeds: 0 where the interval is over pictures.
    published: the paper's figure for the same model, data and measurement, None where it has none. change: from the
    original in points, with its paired interval. state: "measured", or why there is no figure ("no data: imagenet-a").
    """

    row: str
    column: str
    figure: str = "r1"
    group: str = "all"
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    published: float | None = None
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    state: str = "not run"

    def __post_init__(self) -> None:
        if (self.ours is None) == (self.state == MEASURED):
            raise ValueError(f"a row has a figure if it was measured, and no other: {self}")

    @property
    def difference(self) -> float | None:
        """Ours less the published figure, in points."""
        return None if self.ours is None or self.published is None else self.ours - self.published


@dataclass(frozen=True)
class Finding:
    """What became of a claim: a paired difference over seeds (real data: models, of which `seeds` is the number) with its 95% interval, and the verdict. p: two-sided, below 0.05 where
    the verdict is settled (figures.py, `p_value`); None where nothing was tested. hypothesis: what is compared, the same text for
    the same comparison in other experiments; "" for one of its own."""

    says: str
    compared: str
    mean: float | None
    low: float | None
    high: float | None
    seeds: int
    verdict: str
    p: float | None = None
    hypothesis: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG with its caption, for the page."""

    caption: str
    png: bytes


@dataclass(frozen=True)
class Filled:
    """A filled experiment. protocol: how it was measured, in a sentence. runs: one dictionary a run and figure, for the
    table of single runs. pages: what is on them, and where they are, below the output folder."""

    rows: Sequence[Row]
    findings: Sequence[Finding] = ()
    notes: Sequence[str] = ()
    protocol: str = ""
    runs: Sequence[Mapping[str, Any]] = field(default_factory=list)
    pictures: Sequence[Picture] = ()
    pages: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Data:
    """What there is to run on. name: "builtin", or the root folder. found: data set to its folder; missing: data set to
    the reason. seeds: at most so many, None for each experiment's own number. protocol: "standard" or "paper". models:
    those of real data (real/models.py), none for the paper's. settings: numbers of all runs that are not the paper's."""

    name: str
    found: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    seeds: int | None = None
    protocol: str = "standard"
    models: tuple[Any, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Plan(Protocol):
    """How an experiment is done on one kind of data."""

    def jobs(self, data: Data) -> list[Job]:
        """What is to be run, at once and without any computation. Where data lack, a job that others are after is run for them
        alone: `fill` takes figures from jobs that no other of these is after."""
        ...

    def fill(self, outcomes: Mapping[str, Outcome], data: Data) -> Filled:
        """The table, from what became of the jobs; whatever was not done says so."""
        ...
