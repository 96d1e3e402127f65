"""Declared experiments: their jobs, and tables and findings from hand-made results."""

from __future__ import annotations

import dataclasses
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hit_rows import write_hits
from relevit.data.builtin import digits as bench
from relevit.errors import UserError
from relevit.experiments import arms, hits
from relevit.experiments.engines import resolve
from relevit.experiments.experiment import SHARE, SHIFTED, Arm, Claim, Data, Design, Run
from relevit.experiments.jobs import Job, Outcome, in_order
from relevit.experiments.paper import PAPER
from relevit.experiments.published import average_change, published
from relevit.experiments.results import Cell, Results
from relevit.experiments.sources import builtin, builtin_work
from relevit.experiments.table import EXPERIMENTS, chosen, plan_for, plan_of
from relevit.statistics.estimate import Estimate

BUILTIN = Data("builtin")
COUNT = 800  # pictures of one view of a test set


Hits = dict[str, dict[str, np.ndarray]]  # of a cell: set to figure to whether each picture is right
DESIGNS = {name: row.builtin for name, row in PAPER.items() if isinstance(row.builtin, Design)}


def written(out: Path, key: str, seed: int, views: int = 1) -> Hits:
    """The rows of a cell with hits at random."""
    rng = np.random.default_rng(seed)
    found = {}
    for name in bench.TEST_SETS:
        first = rng.random(views * COUNT) < rng.uniform(0.2, 0.9)
        found[name] = {"r1": first, "r5": first | (rng.random(views * COUNT) < 0.5)}
        labels = np.tile(bench.test_set(name, "test", 1).labels, views)
        classes, objects = [bench.CLASSES[label] for label in labels], np.tile(np.arange(COUNT), views)
        write_hits(out, key, f"builtin/{name}", first, found[name]["r5"], classes, None, objects)
    return found


def result(seed: int, rate: float = 1e-4, views: int = 1) -> dict[str, Any]:
    """A cell's result."""
    return {"rate": rate, "views": views, SHARE: 100 * np.random.default_rng(seed).random()}


def accuracy(found: Hits, name: str, figure: str, chosen: np.ndarray) -> float:
    """By a way of its own: pictures counted one by one."""
    right = [bool(found[name][figure][i]) for i in np.flatnonzero(chosen)]
    return 100 * sum(right) / len(right)


def value(out: Path, name: str, views: int, figure: str = "r1", group: str = "all", key: str = "original") -> float:
    """A figure of the original, as the cell of a table says."""
    groups = ("all",) if group == "all" else ("all", group)
    design = Design((Arm("one", "m"),), (name,), figures=("r1", "r5"), groups=groups, pictures_per_object=views)
    outcomes = {"original": done(result(3)), "one-3-seed-0": Outcome("skipped", None, "not run")}
    cells = filled(design, outcomes, out).cells
    (cell,) = (c for c in cells if (c.row, c.figure, c.group) == ("original", figure, group))
    assert cell.ours is not None
    return cell.ours.value


@pytest.mark.slow
def test_figures_come_from_the_rows_of_the_evaluation(tmp_path: Path) -> None:
    found = written(tmp_path, "original", 3, views=3)
    for name in ("location", "background_shuffled"):
        in_a = bench.test_set(name, "test", 1).labels % 2 == 0
        for group, of in (("all", np.ones(COUNT, bool)), ("set_a", in_a), ("rest", ~in_a)):
            for figure in ("r1", "r5"):
                mine = accuracy(found, name, figure, of)  # one view: the first third
                assert value(tmp_path, name, 1, figure, group) == pytest.approx(mine, abs=1e-9)
        whole = accuracy(found, name, "r1", np.ones(3 * COUNT, bool))
        assert value(tmp_path, name, 3) == pytest.approx(whole, abs=1e-9) != mine
    mean = np.mean([value(tmp_path, name, 1) for name in bench.TEST_SETS if name != "in_distribution"])
    assert value(tmp_path, SHIFTED, 1) == pytest.approx(mean)
    design = Design((Arm("one", "m"),), (SHARE,))
    outcomes = {"original": done(result(3)), "one-3-seed-0": Outcome("skipped", None, "not run")}
    cell = filled(design, outcomes, tmp_path).cells[0]
    assert cell.ours is not None and cell.ours.value == result(3)[SHARE]


def test_a_hit_is_the_picture_of_its_number(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(13) < 0.5
    write_hits(tmp_path, "a", "b/c", values, ~values, ["x"] * 13, [(4, 7)] * 12 + [()])
    read = hits.read_hits(tmp_path, "a", "b/c")
    assert hits.right(read, "r1").tolist() == values.tolist() and hits.right(read, "r5").tolist() == (~values).tolist()
    assert hits.first_answers(read).tolist() == [4] * 12 + [-1]
    assert read.objects is None and set(read.groups) == {"x"}
    assert hits.right(read.only(read.indices > 10), "r1").tolist() == values[11:].tolist()


def test_a_change_is_over_the_images_that_were_read_both_times(tmp_path: Path) -> None:
    before, after = (
        np.array([1, 0, 0, 1, 1], bool),
        np.array([1, 1, 1, 0], bool),
    )  # of places 0, 1, 3, 4, 5 and 0, 1, 2, 5
    write_hits(tmp_path, "a", "s", before, before, ["x"] * 5, places=[0, 1, 3, 4, 5])
    write_hits(tmp_path, "b", "s", after, after, ["x"] * 4, places=[0, 1, 2, 5])
    first, second = (hits.read_hits(tmp_path, key, "s") for key in "ab")
    found = hits.change(first, second, "r1")
    assert found is not None and found.value == pytest.approx(100 * (1 - 1) / 3) and found.count == 3
    assert hits.change(first.only(first.indices == 3), second, "r1") is None
    with pytest.raises(UserError, match=r"is gone: remove .*c\.json to have it made again"):
        hits.read_hits(tmp_path, "c", "s")


def done(value: Any) -> Outcome:
    return Outcome("done", value)


def filled(design: Design, outcomes: dict[str, Outcome], out: Path) -> Results:
    return plan_of(design, BUILTIN).results(outcomes, out)


def test_a_table_has_means_paired_changes_and_reasons(tmp_path: Path) -> None:
    one, two, three = Arm("one", "m"), Arm("two", "m"), Arm("three", "m")
    claim = Claim("one beats two", "one", "two", "location")
    design = Design((one, two, three), ("location", SHIFTED), (claim,), seeds=3, figures=("r1", "r5"))
    start = written(tmp_path, "original", 0)
    ones = [written(tmp_path, f"one-3-seed-{i}", 10 + i) for i in range(3)]
    twos = [written(tmp_path, f"two-3-seed-{i}", 20 + i) for i in range(3)]
    outcomes = {"original": done(result(0))}
    for seed in range(3):
        outcomes[f"one-3-seed-{seed}"] = done(result(10 + seed, 1e-5))
        failed = Outcome("failed", None, "lines\nValueError: x")
        outcomes[f"two-3-seed-{seed}"] = failed if seed == 1 else done(result(20 + seed, 3e-5))
        outcomes[f"three-3-seed-{seed}"] = Outcome("skipped", None, "no data: imagenet-a (nowhere)")
    own = filled(design, outcomes, tmp_path)
    cells = {(cell.row, cell.column, cell.figure): cell for cell in own.cells}
    assert list(dict.fromkeys(cell.row for cell in own.cells)) == ["original", "one", "two", "three"]
    everything = np.ones(COUNT, bool)
    values = [accuracy(each, "location", "r5", everything) for each in ones]
    found, first = cells["one", "location", "r5"], accuracy(start, "location", "r5", everything)
    half = 4.302652729911275 * np.std(values, ddof=1) / np.sqrt(3)
    assert found.ours is not None and found.change is not None
    assert found.ours.value == pytest.approx(np.mean(values)) and found.seeds == 3
    assert found.ours.low == pytest.approx(np.mean(values) - half)
    assert found.change.high == pytest.approx(np.mean(values) - first + half)
    assert found.change.value == pytest.approx(np.mean(values) - first)
    assert cells["two", "location", "r1"].seeds == 2
    original = cells["original", "location", "r5"]
    assert original.ours is not None and original.ours.over == "objects" and original.change is None
    assert original.ours.value == pytest.approx(first) and original.ours.low < first < original.ours.high
    absent = cells["three", SHIFTED, "r1"]
    assert absent.ours is None and absent.state == "no data: imagenet-a (nowhere)"
    assert all(cell.published is None and cell.difference is None for cell in own.cells)
    (finding,) = own.findings
    differences = [
        accuracy(ones[i], "location", "r1", everything) - accuracy(twos[i], "location", "r1", everything)
        for i in (0, 2)
    ]
    assert finding.difference is not None
    assert finding.count == 2 and finding.difference.value == pytest.approx(np.mean(differences))
    assert any("fewer are done: two 2, three 0" in note for note in own.notes)
    assert any("one 1e-05, two 3e-05" in note for note in own.notes)
    run = next(v for v in own.values if (v.row, v.seed, v.column, v.figure) == ("two", 2, "location", "r1"))
    assert run.ours is not None and run.rate == 3e-5
    assert run.ours.value == pytest.approx(accuracy(twos[2], "location", "r1", everything))


def test_a_figure_is_of_what_was_measured_and_of_nothing_else() -> None:
    three, more = (Estimate(value, value, value, 1, "seeds") for value in (3.0, 5.5))
    assert Cell("a", "b", ours=three, reason="no data: b").state == "measured"
    assert Cell("a", "b", published=3.0, reason="no data: b").state == "no data: b"
    assert Cell("a", "b", published=3.0).difference is None
    assert Cell("a", "b", ours=more, published=3.0).difference == 2.5


@pytest.mark.parametrize("name", [name for name in PAPER if PAPER[name].builtin is not None])
def test_every_declared_experiment_can_be_run(name: str, tmp_path: Path) -> None:
    """Its jobs are well declared, their functions are there and take the arguments, its methods and explainers exist."""
    import inspect

    from relevit.explainers import EXPLAINERS
    from relevit.training.methods import METHODS

    plan = plan_for(name, BUILTIN)
    jobs = in_order(plan.jobs())
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
    fewer = in_order(plan_for(name, dataclasses.replace(BUILTIN, seeds=1)).jobs())
    assert {job.key for job in fewer} <= {job.key for job in jobs}
    empty = plan.results({job.key: Outcome("skipped", None, "not run") for job in jobs}, tmp_path)
    assert empty.cells and all(cell.ours is None for cell in empty.cells)
    assert all(finding.difference is None for finding in empty.findings)


def test_all_experiments_together_agree_on_their_jobs() -> None:
    known: dict[str, Job] = {}
    for name in chosen(["all"], "builtin"):
        for job in plan_for(name, BUILTIN).jobs():
            assert known.setdefault(job.key, job) == job
    in_order(known.values())


def test_claims_name_rows_and_columns() -> None:
    for name, design in DESIGNS.items():
        runs = design.runs()
        if not name.startswith("figure") or name == "figure4":
            assert all(len(own) == design.seeds for own in runs.values())  # of each arm and share a row
        for claim in design.claims:
            assert claim.arm in runs and claim.against in (*runs, "original")
            assert claim.figure in design.figures and (claim.on or design.sets[0]) in design.sets
            assert claim.group in design.groups


def test_an_experiment_may_come_from_another_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("mine", "relevit.experiments.paper:APPENDIX", "relevit.experiments")
    monkeypatch.setattr("relevit.experiments.paper.APPENDIX", PAPER["appendix_e"], raising=False)
    monkeypatch.setattr(EXPERIMENTS, "added", {"mine": entry})
    assert chosen(["mine"], "builtin") == ["mine"] and chosen(["all"], "builtin")[-1] == "mine"
    assert EXPERIMENTS["mine"].builtin is PAPER["appendix_e"].builtin


def test_arms_that_take_anothers_rate_wait_for_it() -> None:
    half = Run(arms.NEAR_RATES[0], 4)
    job = builtin.cell_job(half)
    assert job.after == ("relevance-3-rate",) and job.arguments["factor"] == 0.5 and job.arguments["seed"] == 4
    fewer = Run(arms.BY_SAMPLES[20, 5], 0)
    assert builtin.cell_job(fewer).after == ("relevance-20-rate",)
    assert builtin.cell_job(fewer).key == "relevance-20-of-5-seed-0"


def test_other_classes_are_drawn_by_the_seed() -> None:
    jobs = [builtin.cell_job(Run(arms.OTHER_CLASSES, seed)) for seed in (0, 3)]
    assert [job.arguments["choice"] for job in jobs] == [0, 3]
    assert "choice" not in builtin.cell_job(Run(arms.RELEVANCE, 3)).arguments


def test_chosen_classes() -> None:
    assert builtin_work.chosen_classes() == bench.SET_A
    five = builtin_work.chosen_classes(5)
    assert len(set(five)) == 5 and set(five) < set(bench.SET_A) and list(five) == sorted(five)
    others = [builtin_work.chosen_classes(10, choice) for choice in range(3)]
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


def test_an_arm_may_start_from_another_model(tmp_path: Path) -> None:
    """Its trials, its cells and the first row are of that model, which is made before all of them."""
    design, one = DESIGNS["appendix_l"], dataclasses.replace(BUILTIN, seeds=1)
    assert {arm.start for arm in design.arms} == {"linear-head"}
    assert {own.arms[0].start for own in DESIGNS.values()} == set(builtin.STARTS)
    plan = plan_of(design, one)
    jobs = {job.key: job for job in in_order(plan.jobs())}
    assert next(iter(jobs)) == "linear-head" and "original" not in jobs and "original-rate" not in jobs
    for key, job in jobs.items():
        if job.function.endswith((":trial", ":cell", ":original")):
            assert job.arguments["start"] == "linear-head", key
            assert "linear-head" in job.after or job.function.endswith(":cell")
    choice = jobs["relevance_from_linear_head-3-rate"]
    trials = {key: {"accuracy": 90.0, "classification_loss": 0.5} for key in choice.after}
    trials["linear-head-rate"] = {"accuracy": 91.0, "classification_loss": 0.6}
    trials["relevance_from_linear_head-3-rate-0.0003"] = {"accuracy": 80.0, "classification_loss": 0.5}
    assert builtin_work.choose(after=trials, **choice.arguments)["rate"] == 1e-4
    outcomes = {key: Outcome("skipped", None, "not run") for key in jobs} | {"linear-head-figures": done(result(4))}
    found = written(tmp_path, "linear-head-figures", 4)
    first = plan.results(outcomes, tmp_path).cells[0]
    expected = accuracy(found, "in_distribution", "r1", np.ones(COUNT, bool))
    assert first.row == "original" and first.ours is not None and first.ours.value == pytest.approx(expected)
    assert "start" not in builtin.cell_job(Run(arms.RELEVANCE, 0)).arguments  # usual values are left out


@pytest.mark.slow
def test_the_linear_head_has_the_classes_of_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head alone is new, and its classes are numbered as the benchmark's."""
    from relevit.models.loading import load

    monkeypatch.setattr(builtin_work, "HEAD_PER_CLASS", 5)
    found = [builtin_work.linear_head("linear-head", tmp_path) for _ in range(2)]  # the second after a lost result
    assert found[0] == found[1] and found[0]["images"] == 100 and found[0]["classes"] == 20
    new, old = builtin_work._start("linear-head", tmp_path), builtin_work._start("original", tmp_path)
    changed = [name for name, value in new.state_dict().items() if not torch.equal(value, old.state_dict()[name])]
    assert changed == ["head.weight", "head.bias"]
    assert builtin_work.trial(None, tmp_path, start="linear-head")["accuracy"] > 90  # chance is 5
    assert load("builtin")[0].head.weight.shape == new.head.weight.shape
