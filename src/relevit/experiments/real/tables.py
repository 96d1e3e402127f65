"""Tables of accuracies on real data: models and variants in the rows, benchmarks in the columns, the paper's figures beside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from relevit.experiments.filled import MEASURED, Data, Filled, Finding, Row
from relevit.experiments.jobs import Job, Outcome
from relevit.experiments.published import Published, average_change, published
from relevit.experiments.real.models import SELF_SUPERVISED, PaperModel, chosen_models
from relevit.experiments.real.variants import (
    Variant,
    default_split,
    evaluation_job,
    evaluation_key,
    run_jobs_of,
    settings_of,
    split_jobs,
)

if TYPE_CHECKING:
    import numpy as np

MAIN = ("imagenet", "imagenet-a", "imagenet-r", "imagenet-sketch", "imagenet-v2", "objectnet")
SI_SCORE = ("si-score-location", "si-score-rotation", "si-score-size")
Which = Literal["all", "base", "first", "self_supervised"]


@dataclass(frozen=True)
class AccuracyPlan:
    """A Plan (filled.py). variants: beside the original. benchmarks: the columns. figures: r1, r5. groups: all, set_a, rest. models:
    all of --models, those that Figure 4 averages over, the first, or the self-supervised one. table: the published one.
    spread: variants that are one row together, name to their names: a mean over seeds or choices of classes. rows: whether there is
    a row for each model, averages: whether there are rows of the average change over the models."""

    variants: tuple[Variant, ...]
    benchmarks: tuple[str, ...] = MAIN
    figures: tuple[str, ...] = ("r1",)
    groups: tuple[str, ...] = ("all",)
    models: Which = "all"
    table: int | None = None
    spread: Mapping[str, tuple[str, ...]] | None = None
    rows: bool = True
    averages: bool = False
    notes: tuple[str, ...] = ()

    def jobs(self, data: Data) -> list[Job]:
        found: list[Job] = []
        if "set_a" in self.groups or "rest" in self.groups:
            found += split_jobs(Variant(""), data)
        for model in select(data, self.models):
            found += before_original(model, data)
            found += [evaluation_job(model, None, benchmark, data) for benchmark in self.benchmarks]
            for variant in self._variants(data):
                found += run_jobs_of(model, variant, data)
                found += [evaluation_job(model, variant, benchmark, data) for benchmark in self.benchmarks]
        return once(found)

    def fill(self, outcomes: Mapping[str, Outcome], data: Data) -> Filled:
        set_a = _set_a(outcomes.get(default_split(data)))
        rows: list[Row] = []
        runs: list[dict[str, Any]] = []
        changes: Changes = {}
        members = self._rows(data)
        for figure in self.figures:
            for group in self.groups:
                for model in select(data, self.models):
                    for benchmark in self.benchmarks:
                        key: dict[str, Any] = {"column": benchmark, "figure": figure, "group": group}
                        start = outcomes[evaluation_key(model, None, benchmark)]
                        first = hits(start, figure, group, set_a)
                        if self.rows:
                            rows.append(self._original(model, start, first, key))
                        for name, variants in members.items():
                            own = [outcomes[evaluation_key(model, variant, benchmark)] for variant in variants]
                            row = self._row(model, name, variants[0], own, first, key, set_a)
                            if self.rows:
                                rows.append(row)
                            if row.change is not None:
                                changes.setdefault((name, benchmark, figure, group), {})[model.name] = row.change
                            runs += _runs(model, variants, own, key, set_a)
        averages = list(self._averages(members, changes, outcomes, data))
        over = dict.fromkeys(model for own in changes.values() for model in own)
        notes = [*self.notes, *settings_note(data)]
        if averages and over:
            notes.insert(
                0, f"Averages are over {', '.join(over)}, of each column those that were measured before and after."
            )
        protocol = " ".join([protocol_of(data), *self._intervals(), *self._baselines(data)])
        return Filled([*rows, *averages], list(self._findings(members, changes)), notes, protocol, runs)

    def _intervals(self) -> list[str]:
        """Of what the intervals are, in sentences."""
        inside = {name for names in (self.spread or {}).values() for name in names}
        alone = any(variant.name not in inside for variant in self.variants)
        sentences = ["Intervals (95%): of the original Wilson's, over images."] if self.rows else []
        if alone and self.rows:
            sentences += [
                "Each cell of a fine-tuned model is of one fine-tuning with one seed: its interval (Wilson's) and that of its change (a paired "
                "bootstrap, or Bonett and Price's where few images differ) are over the images alone, taken as independent, and say "
                "nothing of how much another seed would change."
            ]
        if self.spread:
            sentences += [
                "Of a mean over several runs Student's t over the runs, the original's figure taken as fixed."
            ]
        if self.averages:
            each = "" if self.rows else "Intervals (95%): "
            sentences += [
                f"{each}{'of' if each else 'Of'} an average change Student's t over the models, each with one seed."
            ]
        return sentences

    def _baselines(self, data: Data) -> list[str]:
        """At which rates and weights the baselines run, in a sentence; none where there are none."""
        if not any(variant.method.startswith(("gradmask", "rrr")) for variant in self.variants):
            return []
        models = select(data, self.models)
        ruled = [model.name for model in models if model.lr is None]
        rates = [] if len(ruled) == len(models) else ["at the published learning rates of our method"]
        rates += [f"at rates of their own by the paper's rule ({', '.join(ruled)})"] if ruled else []
        return [
            f"GradMask and RRR run {' or '.join(rates)} and at their default weights: the paper tuned their hyperparameters for "
            "each model, and gives no values."
        ]

    def _variants(self, data: Data) -> tuple[Variant, ...]:
        """The variants to run: of those that are one row together, the first `--seeds`."""
        left_out = {name for names in (self.spread or {}).values() for name in names[data.seeds or len(names) :]}
        return tuple(variant for variant in self.variants if variant.name not in left_out)

    def _rows(self, data: Data) -> dict[str, list[Variant]]:
        """Row's name to the variants that it is a mean of."""
        together = {row: names[: data.seeds or len(names)] for row, names in (self.spread or {}).items()}
        inside = {name for names in (self.spread or {}).values() for name in names}
        by_name = {variant.name: variant for variant in self.variants}
        found = {variant.name: [variant] for variant in self.variants if variant.name not in inside}
        return found | {row: [by_name[name] for name in names] for row, names in together.items()}

    def _original(self, model: PaperModel, outcome: Outcome, values: np.ndarray | None, key: Mapping[str, Any]) -> Row:
        from relevit.statistics import interval

        name = f"{model.name} original"
        paper = cell(self.table, model.name, "original", "none", key["column"], key["figure"], key["group"])
        if values is None or not len(values):
            return Row(name, **key, published=paper, state=state(outcome, values is not None))
        share = interval.share(values).percent
        return Row(name, **key, ours=share.value, low=share.low, high=share.high, published=paper, state=MEASURED)

    def _row(
        self,
        model: PaperModel,
        name: str,
        variant: Variant,
        own: Sequence[Outcome],
        first: np.ndarray | None,
        key: Mapping[str, Any],
        set_a: SetA | None,
    ) -> Row:
        from relevit.statistics import interval, over_seeds, paired

        title = f"{model.name} {name}"
        method, masks = variant.published or ("", "")
        paper = cell(self.table, model.name, method, masks, key["column"], key["figure"], key["group"])
        each = [hits(outcome, key["figure"], key["group"], set_a) for outcome in own]
        values = [value for value in each if value is not None and len(value)]
        if not values:
            return Row(title, **key, published=paper, state=state(own[0], each[0] is not None))
        means = [100 * float(value.mean()) for value in values]
        if len(own) > 1:
            spread = over_seeds.mean(means)
            before = None if first is None else 100 * float(first.mean())
            moved = {} if before is None else _change(spread.less(before))
            return Row(
                title, **key, ours=spread.value, low=spread.low, high=spread.high, seeds=spread.count, published=paper,
                state=MEASURED, **moved,
            )  # fmt: skip
        share = interval.share(values[0]).percent
        moved = {}
        if first is not None and len(first) == len(values[0]):
            moved = _change(paired.difference_of_images(first, values[0]).percent)
        return Row(
            title, **key, ours=share.value, low=share.low, high=share.high, published=paper, state=MEASURED, **moved
        )

    def _averages(
        self, members: Mapping[str, list[Variant]], changes: Changes, outcomes: Mapping[str, Outcome], data: Data
    ) -> Iterator[Row]:
        """Rows of the change, averaged over the models, the published ones over the same models; an interval over models where
        there are two or more."""
        from relevit.statistics import over_seeds

        if not self.averages:
            return
        models = select(data, self.models)
        known = [model.name for model in models]
        for figure in self.figures:
            for group in self.groups:
                for name, variants in members.items():
                    for benchmark in self.benchmarks:
                        own = changes.get((name, benchmark, figure, group), {})
                        method, masks = variants[0].published or ("", "")
                        paper = None
                        if self.table in (1, 2) and method == "ours" and group == "all":
                            paper = average_change(self.table, method, masks, benchmark, figure, own or known)
                        key: dict[str, Any] = {"column": benchmark, "figure": figure, "group": group}
                        title = f"average change, {name}"
                        if not own:
                            needed = [
                                outcomes[evaluation_key(model, variant, benchmark)]
                                for model in models
                                for variant in (None, *variants)
                            ]
                            why = next((state(outcome) for outcome in needed if outcome.state != "done"), None)
                            why = why or "no model was measured before and after"
                            yield Row(title, **key, published=paper, state=why)
                            continue
                        mean = over_seeds.mean(list(own.values()))
                        yield Row(
                            title, **key, ours=mean.value, low=mean.low, high=mean.high, published=paper, state=MEASURED
                        )

    def _findings(self, members: Mapping[str, list[Variant]], changes: Changes) -> Iterator[Finding]:
        """The paper's claim for its own method: it gains on shifted sets. Over models, which must be two or more."""
        from relevit.experiments.figures import p_value, verdict
        from relevit.statistics import over_seeds

        if not self.averages:
            return
        claims = [
            (name, group, benchmark)
            for name, variants in members.items()
            if variants[0].method == "relevance"
            for group in self.groups
            for benchmark in self.benchmarks
            if benchmark not in ("imagenet", "imagenet-v2")
        ]
        for name, group, benchmark in claims:
            own = changes.get((name, benchmark, self.figures[0], group), {})
            of = {"all": "", "set_a": ", classes of set A", "rest": ", other classes"}[group]
            says = f"{name} gains on {benchmark}, averaged over the models{of}"
            compared = f"{name} less original, {benchmark}, R@1{of}"
            tested = f"accuracy: {compared}, higher, over {', '.join(sorted(own))}"
            if len(own) < 2:
                why = "needs two models" if own else "not run"
                yield Finding(says, compared, None, None, None, len(own), why, None, tested)
                continue
            found = over_seeds.mean(list(own.values()))
            judged, p = verdict("higher", 0.0, found), p_value("higher", 0.0, found)
            yield Finding(says, compared, found.value, found.low, found.high, found.count, judged, p, tested)


Changes = dict[tuple[str, str, str, str], dict[str, float]]  # of row, benchmark, figure, group: model to points
SetA = tuple[frozenset[str], frozenset[int]]


def select(data: Data, which: Which) -> tuple[PaperModel, ...]:
    """The models of --models that a plan is about."""
    if which == "self_supervised":
        return (data.settings.get("self_supervised") or SELF_SUPERVISED,)
    models = data.models or chosen_models(())
    if which == "base":
        return tuple(model for model in models if model.base) or models[:1]
    return models[:1] if which == "first" else models


def before_original(model: PaperModel, data: Data) -> list[Job]:
    from relevit.experiments.real.variants import original_jobs

    return original_jobs(model, data)


def once(jobs: Sequence[Job]) -> list[Job]:
    """Each job once, at its first place."""
    return list({job.key: job for job in reversed(jobs)}.values())[::-1]


def hits(outcome: Outcome, figure: str, group: str, set_a: SetA | None) -> np.ndarray | None:
    """The hits of a done evaluation, bool (images of the group,); None where it was not done, or the group is not known."""
    import numpy as np

    from relevit.evaluation.accuracy.class_sets import classes_of
    from relevit.experiments.cells import unpacked

    if outcome.state != "done" or (group != "all" and set_a is None):
        return None
    result = outcome.result
    values = unpacked(result["hits"][figure], result["images"])
    if group == "all" or set_a is None:
        return values
    names, indices = set_a
    known = classes_of({name for name, *_ in result["classes"]})
    inside = [
        name in names or known.get(name, right[0] if right else -1) in indices for name, right, _ in result["classes"]
    ]
    member = np.repeat(np.array(inside, bool), [count for *_, count in result["classes"]])
    return values[member if group == "set_a" else ~member]


def _set_a(outcome: Outcome | None) -> SetA | None:
    """Names and ImageNet class indices of the classes of the training samples."""
    from relevit.data.classes import match_classes

    if outcome is None or outcome.state != "done":
        return None
    names = outcome.result["set_a"]
    return frozenset(names), frozenset(match_classes(names).classes.values())


def cell(
    table: int | None, model: str, method: str, masks: str, benchmark: str, figure: str, group: str = "all"
) -> float | None:
    """The paper's figure, None where it has none."""
    if table is None or group != "all" or not method:
        return None
    wanted = (model, method, masks, benchmark, figure)
    found = (c for c in published(table) if _key(c) == wanted)
    return next((c.value for c in found), None)


def _key(c: Published) -> tuple[str, str, str, str, str]:
    return c.model, c.method, c.masks, c.benchmark, c.figure


def state(outcome: Outcome, known: bool = False) -> str:
    """Why there is no figure. known: whether it is known which images would count."""
    if known:
        return "no image of these classes"
    return outcome.reason.strip().splitlines()[-1] if outcome.reason.strip() else "the classes of set A are not known"


def protocol_of(data: Data) -> str:
    """How it was measured, in a sentence."""
    numbers = settings_of(data)
    how = {
        "paper": "Protocol paper: mean and std 0.5, short side 256, crop 224, 1000 classes compete, ObjectNet's first label.",
        "standard": "Protocol standard: each model's own preprocessing, the benchmarks' own classes.",
    }[data.protocol]
    return (
        f"{how} Fine-tuning: {numbers['epochs']} epoch{'s' if numbers['epochs'] > 1 else ''}, batches of {numbers['batch_size']}, the best epoch by the loss on "
        "validation samples."
    )


def settings_note(data: Data) -> list[str]:
    """What is not as in the paper, in a sentence; none where all is."""
    numbers = settings_of(data)
    changed = [
        f"{key} {numbers[key]} (the paper: {value})"
        for key, value in (("epochs", 50), ("classes", 500))
        if numbers[key] != value
    ]
    return ["Not the paper's setting: " + ", ".join(changed) + "."] if changed else []


def _change(change: Estimate) -> dict[str, Any]:
    return {"change": change.value, "change_low": change.low, "change_high": change.high}


def _runs(
    model: PaperModel, variants: Sequence[Variant], own: Sequence[Outcome], key: Mapping[str, Any], set_a: SetA | None
) -> list[dict[str, Any]]:
    found = []
    for variant, outcome in zip(variants, own, strict=True):
        values = hits(outcome, key["figure"], key["group"], set_a)
        if values is not None and len(values):
            found.append(
                {
                    "row": f"{model.name} {variant.name}",
                    "seed": variant.seed,
                    "rate": "" if model.lr is None else model.lr * variant.factor,
                    "set": key["column"],
                    "group": key["group"],
                    "figure": key["figure"],
                    "value": 100 * float(values.mean()),
                }
            )
    return found
