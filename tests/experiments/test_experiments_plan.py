"""Declared experiments: their jobs, and tables and findings from hand-made results."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from relevit.data.builtin import digits as bench
from relevit.experiments import arms, cells, figures
from relevit.experiments.builtin_plan import GridPlan
from relevit.experiments.cells import Arm
from relevit.experiments.engines import resolve
from relevit.experiments.filled import Data, Row
from relevit.experiments.grids import GRIDS, Contrast, Grid
from relevit.experiments.jobs import Job, Outcome, in_order
from relevit.experiments.published import average_change, published
from relevit.experiments.table import EXPERIMENTS, chosen, plan_for
from relevit.statistics.estimate import Estimate

BUILTIN = Data("builtin")
COUNT = 800  # pictures of one view of a test set


def packed(values: np.ndarray) -> str:
    return np.packbits(values).tobytes().hex()


def result(seed: int, rate: float = 1e-4, views: int = 1) -> dict[str, Any]:
    """A cell's result with hits at random."""
    rng = np.random.default_rng(seed)
    hits = {}
    for name in bench.TEST_SETS:
        first = rng.random(views * COUNT) < rng.uniform(0.2, 0.9)
        hits[name] = {"r1": packed(first), "r5": packed(first | (rng.random(views * COUNT) < 0.5))}
    return {"rate": rate, "views": views, "hits": hits, "foreground_share": 100 * rng.random()}


def accuracy(found: dict[str, Any], name: str, figure: str, chosen: np.ndarray) -> float:
    """By a way of its own: bits read one by one."""
    text = "".join(f"{int(digit, 16):04b}" for digit in found["hits"][name][figure])
    right = [text[i] == "1" for i in np.flatnonzero(chosen)]
    return 100 * sum(right) / len(right)


def test_figures_come_from_the_packed_hits() -> None:
    found = result(3, views=3)
    for name in ("location", "background_shuffled"):
        labels = bench.test_set(name, "test", 1).labels
        in_a = labels % 2 == 0
        for group, of in (("all", np.ones(COUNT, bool)), ("set_a", in_a), ("rest", ~in_a)):
            for figure in ("r1", "r5"):
                mine = accuracy(found, name, figure, of)  # one view: the first third
                assert figures.value(found, name, 1, figure, group) == pytest.approx(mine, abs=1e-9)
        whole = accuracy(found, name, "r1", np.ones(3 * COUNT, bool))
        assert figures.value(found, name, 3) == pytest.approx(whole, abs=1e-9) != mine
    mean = np.mean([figures.value(found, name, 1) for name in bench.TEST_SETS if name != "in_distribution"])
    assert figures.value(found, "shifted", 1) == pytest.approx(mean)
    assert figures.value(found, "foreground_share", 1) == found["foreground_share"]


def test_a_packed_hit_is_the_picture_of_its_number() -> None:
    values = np.random.default_rng(0).random(13) < 0.5
    assert cells.unpacked(packed(values), 11).tolist() == values[:11].tolist()


@pytest.mark.parametrize(
    ("expects", "low", "high", "seeds", "says"),
    [
        ("higher", 0.1, 2.0, 5, "holds"),
        ("higher", -0.1, 2.0, 5, "not settled"),
        ("higher", -2.0, -0.1, 5, "does not hold"),
        ("lower", -2.0, -0.1, 5, "holds"),
        ("lower", 0.1, 2.0, 5, "does not hold"),
        ("same", -0.9, 0.9, 5, "holds"),
        ("same", 0.2, 0.9, 5, "holds"),
        ("same", -0.9, 1.1, 5, "not settled"),
        ("same", 1.1, 3.0, 5, "does not hold"),
        ("same", -3.0, -1.1, 5, "does not hold"),
        ("higher", 3.0, 3.0, 1, "not settled"),
    ],
)
def test_verdicts(expects: str, low: float, high: float, seeds: int, says: str) -> None:
    assert figures.verdict(expects, 1.0, Estimate((low + high) / 2, low, high, seeds, "seeds")) == says


def done(value: Any) -> Outcome:
    return Outcome("done", value)


def filled(grid: Grid, outcomes: dict[str, Outcome]) -> Any:
    return GridPlan(grid).fill(outcomes, BUILTIN)


def test_a_grid_is_filled_with_means_paired_changes_and_reasons() -> None:
    one, two, three = Arm("one", "m"), Arm("two", "m"), Arm("three", "m")
    claim = Contrast("one beats two", "one", "two", "location")
    grid = Grid((one, two, three), ("location", "shifted"), (claim,), seeds=3, figures=("r1", "r5"))
    start, ones, twos = result(0), [result(10 + i, 1e-5) for i in range(3)], [result(20 + i, 3e-5) for i in range(3)]
    outcomes = {"original": done(start)}
    for seed in range(3):
        outcomes[f"one-3-seed-{seed}"] = done(ones[seed])
        outcomes[f"two-3-seed-{seed}"] = (
            done(twos[seed]) if seed != 1 else Outcome("failed", None, "lines\nValueError: x")
        )
        outcomes[f"three-3-seed-{seed}"] = Outcome("skipped", None, "no data: imagenet-a (nowhere)")
    own = filled(grid, outcomes)
    rows = {(row.row, row.column, row.figure): row for row in own.rows}
    assert list(dict.fromkeys(row.row for row in own.rows)) == ["original", "one", "two", "three"]
    everything = np.ones(COUNT, bool)
    values = [accuracy(each, "location", "r5", everything) for each in ones]
    found, first = rows["one", "location", "r5"], accuracy(start, "location", "r5", everything)
    half = 4.302652729911275 * np.std(values, ddof=1) / np.sqrt(3)
    assert found.ours == pytest.approx(np.mean(values)) and found.seeds == 3
    assert found.low == pytest.approx(np.mean(values) - half) and found.change_high == pytest.approx(
        np.mean(values) - first + half
    )
    assert found.change == pytest.approx(np.mean(values) - first)
    assert rows["two", "location", "r1"].seeds == 2
    absent = rows["three", "shifted", "r1"]
    assert absent.ours is None and absent.state == "skipped: no data: imagenet-a (nowhere)"
    assert all(row.published is None and row.difference is None for row in own.rows)
    (finding,) = own.findings
    differences = [
        accuracy(ones[i], "location", "r1", everything) - accuracy(twos[i], "location", "r1", everything)
        for i in (0, 2)
    ]
    assert finding.seeds == 2 and finding.mean == pytest.approx(np.mean(differences))
    assert any("fewer are done: two 2, three 0" in note for note in own.notes)
    assert any("one 1e-05, two 3e-05" in note for note in own.notes)
    run = next(r for r in own.runs if (r["row"], r["seed"], r["set"], r["figure"]) == ("two", 2, "location", "r1"))
    assert run["value"] == pytest.approx(accuracy(twos[2], "location", "r1", everything)) and run["rate"] == 3e-5


def test_a_figure_is_of_what_was_measured_and_of_nothing_else() -> None:
    with pytest.raises(ValueError, match="if it was measured"):
        Row("a", "b", ours=3.0, state="no data: b")
    with pytest.raises(ValueError, match="if it was measured"):
        Row("a", "b", published=3.0, state="measured")
    assert Row("a", "b", published=3.0).difference is None
    assert Row("a", "b", ours=5.5, published=3.0, state="measured").difference == 2.5


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if plan_for(name, "builtin") is not None])
def test_every_declared_experiment_can_be_run(name: str) -> None:
    """Its jobs are well declared, their functions are there and take the arguments, its methods and explainers exist."""
    import inspect

    from relevit.explainers import EXPLAINERS
    from relevit.training.methods import METHODS

    plan = plan_for(name, "builtin")
    assert plan is not None
    jobs = in_order(plan.jobs(BUILTIN))
    assert jobs
    for job in jobs:
        injected = {"after": {}, "folder": None}
        wanted = inspect.signature(resolve(job.function)).parameters
        inspect.signature(resolve(job.function)).bind(
            **job.arguments, **{key: value for key, value in injected.items() if key in wanted}
        )
        if "method" in job.arguments:
            assert job.arguments["method"] in METHODS
            explainer = EXPLAINERS[job.arguments.get("explainer", "gae")]
            assert explainer.trains
            second = job.arguments.get("options", {}).get("second_order", False)
            assert second == explainer.needs_second_order
    fewer = in_order(plan.jobs(dataclasses.replace(BUILTIN, seeds=1)))
    assert {job.key for job in fewer} <= {job.key for job in jobs}
    empty = plan.fill({job.key: Outcome("skipped", None, "not run") for job in jobs}, BUILTIN)
    assert empty.rows and all(row.ours is None for row in empty.rows)
    assert all(finding.mean is None for finding in empty.findings)


def test_all_experiments_together_agree_on_their_jobs() -> None:
    known: dict[str, Job] = {}
    for name in chosen(["all"], "builtin"):
        plan = plan_for(name, "builtin")
        assert plan is not None
        for job in plan.jobs(BUILTIN):
            assert known.setdefault(job.key, job) == job
    in_order(known.values())


def test_contrasts_name_rows_and_columns() -> None:
    for grid in GRIDS.values():
        rows = [entry.row for entry in grid.entries()]
        assert len(rows) == len(set(rows))
        for claim in grid.contrasts:
            assert claim.arm in rows and claim.against in (*rows, "original")


def test_arms_that_take_anothers_rate_wait_for_it() -> None:
    half = arms.NEAR_RATES[0]
    job = cells.cell_job(half, 4)
    assert job.after == ("relevance-3-rate",) and job.arguments["factor"] == 0.5 and job.arguments["seed"] == 4
    fewer = next(arm for arm in arms.BY_SAMPLES if (arm.per_class, arm.classes) == (20, 5))
    assert (
        cells.cell_job(fewer, 0).after == ("relevance-20-rate",)
        and cells.cell_key(fewer, 0) == "relevance-20-of-5-seed-0"
    )


def test_other_classes_are_drawn_by_the_seed() -> None:
    jobs = [cells.cell_job(arms.OTHER_CLASSES, seed) for seed in (0, 3)]
    assert [job.arguments["choice"] for job in jobs] == [0, 3]
    assert "choice" not in cells.cell_job(arms.RELEVANCE, 3).arguments


def test_chosen_classes() -> None:
    assert cells.chosen_classes() == bench.SET_A
    five = cells.chosen_classes(5)
    assert len(set(five)) == 5 and set(five) < set(bench.SET_A) and list(five) == sorted(five)
    others = [cells.chosen_classes(10, choice) for choice in range(3)]
    assert all(len(set(own)) == 10 and max(own) < 20 for own in others) and len(set(others)) == 3


def test_the_papers_tables_and_their_average_changes() -> None:
    """Against the rows of average change that the paper prints itself (Table 1, ours with annotated masks, R@1)."""
    printed = {
        "imagenet": -0.8,
        "imagenet-a": 5.8,
        "imagenet-r": 2.7,
        "imagenet-sketch": 0.9,
        "imagenet-v2": -0.3,
        "objectnet": 5.0,
    }
    for benchmark, change in printed.items():
        found = average_change(1, "ours", "annotated", benchmark)
        assert found is not None and abs(found - change) < 0.11, benchmark  # both are of rounded figures
    cell = next(
        c for c in published(2) if (c.model, c.method, c.masks) == ("DeiT-S", "ours", "annotated") and c.figure == "r5"
    )
    assert cell.benchmark == "si-score-location" and cell.value == 51.5
    assert {c.benchmark for c in published(3)} == {"segmentation"} and len(published(3)) == 14 * 3
    assert next(c for c in published(4) if c.method == "only-foreground" and c.benchmark == "imagenet-a").value == 8.9
    assert average_change(1, "gradmask", "tokencut", "imagenet") is None


def test_an_arm_may_start_from_another_model() -> None:
    """Its trials, its cells and the first row are of that model, which is made before all of them."""
    grid = GRIDS["appendix_l"]
    assert {arm.start for arm in grid.arms} == {"linear-head"} and {g.start for g in GRIDS.values()} == set(
        cells.STARTS
    )
    jobs = {job.key: job for job in in_order(grid.jobs(1))}
    assert next(iter(jobs)) == "linear-head" and "original" not in jobs and "original-rate" not in jobs
    for key, job in jobs.items():
        if job.function.endswith((":trial", ":cell", ":original")):
            assert job.arguments["start"] == "linear-head", key
            assert "linear-head" in job.after or job.function.endswith(":cell")
    choice = jobs["relevance_from_linear_head-3-rate"]
    trials = {key: {"accuracy": 90.0, "classification_loss": 0.5} for key in choice.after}
    trials["linear-head-rate"] = {"accuracy": 91.0, "classification_loss": 0.6}
    trials["relevance_from_linear_head-3-rate-0.0003"] = {"accuracy": 80.0, "classification_loss": 0.5}
    assert cells.choose(after=trials, **choice.arguments)["rate"] == 1e-4
    outcomes = {key: Outcome("skipped", None, "not run") for key in jobs} | {"linear-head-figures": done(result(4))}
    first = GridPlan(grid).fill(outcomes, dataclasses.replace(BUILTIN, seeds=1)).rows[0]
    assert first.row == "original" and first.ours == pytest.approx(figures.value(result(4), "in_distribution", 1))
    spec = {key: value for key, value in cells.cell_job(arms.RELEVANCE, 0).arguments.items()}
    assert "start" not in spec  # results of earlier calls stay valid


def test_the_linear_head_has_the_classes_of_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head alone is new, and its classes are numbered as the benchmark's."""
    from relevit.experiments import probe
    from relevit.models.loading import load

    monkeypatch.setattr(probe, "PER_CLASS", 5)
    found = [probe.linear_head("linear-head", tmp_path) for _ in range(2)]  # the second after a lost result
    assert found[0] == found[1] and found[0]["images"] == 100 and found[0]["classes"] == 20
    new, old = cells._start("linear-head", tmp_path), cells._start("original", tmp_path)
    changed = [name for name, value in new.state_dict().items() if not torch.equal(value, old.state_dict()[name])]
    assert changed == ["head.weight", "head.bias"]
    assert cells.trial(None, tmp_path, start="linear-head")["accuracy"] > 90  # chance is 5
    assert load("builtin")[0].head.weight.shape == new.head.weight.shape
