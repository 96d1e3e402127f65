"""One fine-tuning on the built-in benchmark and its figures, as jobs: trials of rates, the rule's choice, the cell itself.

The results hold the single hits of every test set, so that any figure can be computed from them afterwards (figures.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relevit.experiments.jobs import Job

if TYPE_CHECKING:
    from torch import nn

    from relevit.data.builtin.digits import Pictures

RATES = (3e-6, 1e-5, 3e-5, 1e-4, 3e-4)  # the grid of the rule
TUNING_SEED = 100  # of the samples for the choice of the rate, of no seed that is reported
FEWER_RATES = RATES[1:4]
STARTS = ("original", "linear-head")  # the built-in model, and its backbone with a new linear head (probe.py)
_HERE = "relevit.experiments.cells"
_STEP = 0.09  # seconds of an optimiser step with maps on one core


@dataclass(frozen=True)
class Arm:
    """A way to fine-tune the built-in model.

    name: in the tables and in the jobs' keys, of one arm only. method: of relevit.training.methods.METHODS. masks: "exact" or
    "automatic". explainer: whose maps train. per_class: samples of each of `classes` classes of set A. draws: whether
    every seed draws classes of its own, from all, in place of set A's. factor: times the rate that the rule chooses. rate_of:
    the arm whose rate it takes, None for its own. rates: the grid of the rule. views: pictures of each test object, 1 to 3. start: the
    model that is fine-tuned, of STARTS. options: further arguments of `finetune`.
    """

    name: str
    method: str
    masks: str = "exact"
    explainer: str = "gae"
    per_class: int = 3
    classes: int = 10
    draws: bool = False
    factor: float = 1.0
    rate_of: Arm | None = None
    rates: tuple[float, ...] = RATES
    views: int = 1
    start: str = "original"
    cost: float = 1.0  # of a step, in those of the paper's method
    options: Mapping[str, Any] = field(default_factory=dict)

    def spec(self) -> dict[str, Any]:
        """What distinguishes it, as arguments of the functions below; the usual values are left out."""
        usual = Arm("", "")
        names = ("masks", "explainer", "per_class", "classes", "start", "options")
        changed = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(usual, name)}
        return {"method": self.method, **changed}

    @property
    def seconds(self) -> float:
        """Of its training."""
        steps = 50 * -(-self.per_class * self.classes // 8)
        return 2 + _STEP * self.cost * steps

    @property
    def row(self) -> str:
        """Its name in the tables: with the number of samples where that is not the usual one."""
        return self.name if (self.per_class, self.classes) == (3, 10) else self.label()

    def label(self) -> str:
        """Its name with the number of samples, the start of its jobs' keys."""
        of = "" if self.classes == 10 else f"-of-{self.classes}"
        return f"{self.name}-{self.per_class}{of}"


def start_jobs(start: str = "original") -> list[Job]:
    """What makes the model that is fine-tuned: nothing for the original."""
    if start == "original":
        return []
    return [Job(start, "relevit.experiments.probe:linear_head", {"name": start}, seconds=60)]


def figures_key(start: str = "original") -> str:
    """The key of the job with the figures of the model that is fine-tuned."""
    return start if start == "original" else f"{start}-figures"


def original_job(start: str = "original") -> Job:
    """The figures of the model that is fine-tuned."""
    more, after = ({}, ()) if start == "original" else ({"start": start}, (start,))
    return Job(figures_key(start), f"{_HERE}:original", {"views": 3, **more}, after=after, seconds=30)


def rate_jobs(arm: Arm) -> list[Job]:
    """The trials of every rate, and the rule's choice among them; those of the other arm for one that takes its rate."""
    if arm.rate_of is not None:
        return rate_jobs(arm.rate_of)
    before = start_jobs(arm.start)
    more, after = ({"start": arm.start} if before else {}), tuple(job.key for job in before)
    start = Job(f"{arm.start}-rate", f"{_HERE}:trial", {"rate": None, **more}, after=after, seconds=2)
    trials = [
        Job(
            f"{arm.label()}-rate-{rate:g}",
            f"{_HERE}:trial",
            {**arm.spec(), "rate": rate},
            after=after,
            seconds=arm.seconds + 2,
        )
        for rate in arm.rates
    ]
    keys = {f"{rate:g}": job.key for rate, job in zip(arm.rates, trials, strict=True)}
    choice = Job(rate_key(arm), f"{_HERE}:choose", {"trials": keys, **more}, after=(start.key, *keys.values()))
    return [*before, start, *trials, choice]


def rate_key(arm: Arm) -> str:
    """The key of the job that knows the arm's rate."""
    return rate_key(arm.rate_of) if arm.rate_of is not None else f"{arm.label()}-rate"


def cell_key(arm: Arm, seed: int) -> str:
    """The key of one fine-tuning."""
    return f"{arm.label()}-seed-{seed}"


def cell_job(arm: Arm, seed: int) -> Job:
    """One fine-tuning and its figures."""
    arguments = {**arm.spec(), "seed": seed, "views": arm.views}
    if arm.factor != 1.0:
        arguments["factor"] = arm.factor
    if arm.draws:
        arguments["choice"] = seed
    return Job(
        cell_key(arm, seed),
        f"{_HERE}:cell",
        {**arguments, "name": cell_key(arm, seed)},
        after=(rate_key(arm),),
        seconds=arm.seconds + 4 + 10 * arm.views,
    )


def chosen_classes(classes: int = 10, choice: int | None = None) -> tuple[int, ...]:
    """The classes whose samples are used: those of set A, the first `classes` of them in an order shuffled once; or, by
    `choice`, as many of all classes, drawn by that seed."""
    import numpy as np

    from relevit.data.builtin.digits import CLASSES, SET_A

    if choice is not None:
        drawn = np.random.default_rng((301, choice)).permutation(len(CLASSES))[:classes]
    elif classes == len(SET_A):
        return SET_A
    else:
        drawn = np.random.default_rng(302).permutation(SET_A)[:classes]
    return tuple(sorted(int(number) for number in drawn))


@cache
def _start(name: str, folder: Path) -> nn.Module:
    from relevit.models.loading import load

    return load("builtin" if name == "original" else str(folder / "starts" / name))[0]


def train(
    method: str,
    seed: int,
    rate: float,
    folder: Path,
    masks: str = "exact",
    explainer: str = "gae",
    per_class: int = 3,
    classes: int = 10,
    choice: int | None = None,
    start: str = "original",
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The built-in model, or another of STARTS, fine-tuned by an arm of that specification."""
    from relevit.experiments.builtin import AUTOMATIC, fine_tune

    given: dict[str, Any] = dict(options or {})
    if explainer != "gae":
        given["explainer"] = explainer
    if masks == "automatic":
        method = {value: name for name, value in AUTOMATIC.items()}[method]
    model, of = _start(start, folder), chosen_classes(classes, choice)
    return fine_tune(model, method, per_class, seed, rate, classes=of, **given).model


def trial(rate: float | None, folder: Path, **spec: Any) -> dict[str, float]:
    """What the rule looks at: validation accuracy (percent) and classification loss after a training with the samples of
    TUNING_SEED at a rate; before any training for rate None."""
    from relevit.experiments.builtin import rate_figures

    if rate is None:
        return rate_figures(_start(spec.get("start", "original"), folder))
    return rate_figures(train(seed=TUNING_SEED, rate=rate, folder=folder, **spec))


def choose(trials: Mapping[str, str], after: Mapping[str, Any], start: str = "original") -> dict[str, Any]:
    """The paper's rule, on the results of the trials (rate to key)."""
    from relevit.training.learning_rate import choose_rate

    own = {float(rate): after[key] for rate, key in trials.items()}
    before = after[f"{start}-rate"]
    return {"rate": choose_rate(before, own), "original": before, "trials": after}


def original(views: int, folder: Path, start: str = "original") -> dict[str, Any]:
    """The figures of the model that is fine-tuned."""
    return measured(_start(start, folder), views)


def cell(
    name: str, seed: int, views: int, after: Mapping[str, Any], folder: Path, factor: float = 1.0, **spec: Any
) -> dict[str, Any]:
    """One fine-tuning, at the rate that was chosen before; its weights go to the folder's models/NAME."""
    import time

    from relevit.experiments.builtin import mask_figures
    from relevit.models.loading import save_checkpoint

    (choice,) = after.values()
    rate, began = choice["rate"] * factor, time.monotonic()
    model = train(seed=seed, rate=rate, folder=folder, **spec)
    seconds = time.monotonic() - began
    save_checkpoint(folder / "models" / name, model)
    found = {"rate": rate, "train_seconds": seconds, **measured(model, views)}
    if spec.get("masks") == "automatic":
        start = _start(spec.get("start", "original"), folder)
        found["masks"] = mask_figures(start, spec.get("per_class", 3), seed)
    return found


def measured(model: nn.Module, views: int) -> dict[str, Any]:
    """Hits on every test set as packed bits in hexadecimal, {set: {"r1": ..., "r5": ...}}, and the share of relevance on
    the foreground in percent."""
    from relevit.data.builtin.digits import TEST_SETS, test_set
    from relevit.experiments.builtin import share_on_foreground, share_pictures

    hits = {name: hits_of(model, test_set(name, "test", views)) for name in TEST_SETS}
    share = share_on_foreground(model, share_pictures(3))
    return {"views": views, "hits": hits, "foreground_share": 100 * float(share.mean())}


def hits_of(model: nn.Module, pictures: Pictures) -> dict[str, str]:
    """Which pictures are right at the first guess and among the first five, as packed bits in hexadecimal."""
    import numpy as np

    from relevit.experiments.builtin import logits_of

    logits = logits_of(model, pictures)
    first = logits.softmax(1).max(1).indices.numpy()  # as builtin.measure, ties included
    five = logits.topk(5, 1).indices.numpy()
    right = {"r1": first == pictures.labels, "r5": (five == pictures.labels[:, None]).any(1)}
    return {name: np.packbits(values).tobytes().hex() for name, values in right.items()}


def unpacked(bits: str, count: int) -> Any:
    """The first `count` of packed hits, bool (count,)."""
    import numpy as np

    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))[:count].astype(bool)


def with_samples(arm: Arm, per_class: int, classes: int = 10) -> Arm:
    """The same arm at another number of samples, with a smaller grid of rates; at fewer classes it takes the rate of all."""
    rates = arm.rates if per_class == arm.per_class else FEWER_RATES
    whole = replace(arm, per_class=per_class, views=1, rates=rates)
    return whole if classes == arm.classes else replace(whole, classes=classes, rate_of=whole)
