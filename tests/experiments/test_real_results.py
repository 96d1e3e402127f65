"""Tables and claims on real data from hand-made results, beside the published figures; words of their page."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hit_rows import write_hits
from real_tree import TRAINING
from relevit.experiments.arms import BASELINES, OURS, REAL_ABLATION
from relevit.experiments.experiment import Claim, Data, Design, Run
from relevit.experiments.jobs import Outcome
from relevit.experiments.output import kind
from relevit.experiments.paper import PAPER
from relevit.experiments.plan import DesignPlan
from relevit.experiments.published import FOLDER
from relevit.experiments.results import Cell, Results
from relevit.experiments.sources.models import PAPER_MODELS, PaperModel, chosen_models
from relevit.experiments.sources.places import GTSEGS, IMAGENET_S
from relevit.experiments.sources.real import USUAL, Real
from relevit.experiments.table import plan_of
from relevit.experiments.words import column, title
from relevit.statistics.estimate import Estimate

REAL = {name: row.real for name, row in PAPER.items() if isinstance(row.real, Design)}
TUNED = Run(OURS, 0)
HITS = {  # of 7 images: 3 of n01443537, 2 of n01498041, 2 of n03445777
    "before": ("1001000", "1111000"),
    "after": ("1011001", "1111011"),
    "other": ("0001110", "0011110"),
}
Classes = list[tuple[str, tuple[int, ...], int]]  # name, right classes, images
BY_WNID: Classes = [("n01443537", (1,), 3), ("n01498041", (6,), 2), ("n03445777", (574,), 2)]
BY_INDEX: Classes = [("goldfish", (1,), 3), ("ray", (6, 7), 2), ("ball", (574,), 2)]
MODELS = chosen_models(["ViT-B", "DeiT-B"])


class Made:
    """Evaluations that a test makes up, and their outcomes by key."""

    def __init__(self, out: Path) -> None:
        self.out, self.outcomes = out, dict[str, Outcome]()

    def add(self, model: PaperModel, run: Run | None, benchmark: str, which: str, classes: Classes = BY_WNID) -> None:
        key = Real(Data("/data")).evaluation(model, run, benchmark).key
        hit1, hit5 = ([digit == "1" for digit in text] for text in HITS[which])
        names = [name for name, _, count in classes for _ in range(count)]
        right = [own for _, own, count in classes for _ in range(count)]
        write_hits(self.out, key, benchmark, hit1, hit5, names, right)
        self.outcomes[key] = Outcome("done", {"images": 7})


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def share(which: str, figure: int = 0, images: range = range(7)) -> float:
    return 100 * sum(HITS[which][figure][i] == "1" for i in images) / len(images)


def filled(design: Design, data: Data, made: Made, set_a: tuple[str, ...] = TRAINING[:1]) -> Results:
    """Everything that is not given was not run."""
    plan, outcomes = not_run(design, data)
    outcomes[Real(data).samples(USUAL)[-1].key] = Outcome("done", {"set_a": list(set_a)})
    assert set(made.outcomes) <= set(outcomes)
    return plan.results(outcomes | made.outcomes, made.out)


def not_run(design: Design, data: Data, why: str = "not run") -> tuple[DesignPlan, dict[str, Outcome]]:
    plan = plan_of(design, data)
    return plan, {job.key: Outcome("skipped", reason=why) for job in plan.jobs()}


def by_name(found: Results, figure: str = "r1", group: str = "all", col: str = "imagenet") -> dict[str, Cell]:
    return {cell.row: cell for cell in found.cells if (cell.figure, cell.group, cell.column) == (figure, group, col)}


def ours(cell: Cell) -> float:
    assert cell.ours is not None
    return cell.ours.value


def moved(cell: Cell) -> float:
    assert cell.change is not None
    return cell.change.value


def test_accuracies_and_changes_by_hand(made: Made) -> None:
    claim = Claim("ours gains on imagenet-a, averaged over the models", "ours", "original", "imagenet-a", margin=0.0)
    sets, figures = ("imagenet", "imagenet-a"), ("r1", "r5")
    own = Design((OURS,), sets, (claim,), figures=figures, table=1, averages=True)
    data = Data("/data", models=MODELS)
    vit, deit = MODELS
    made.add(vit, None, "imagenet", "before")
    made.add(vit, TUNED, "imagenet", "after")
    made.add(deit, None, "imagenet", "before")
    made.add(deit, TUNED, "imagenet", "other")
    made.add(vit, None, "imagenet-a", "other")
    made.add(vit, TUNED, "imagenet-a", "before")
    made.add(deit, None, "imagenet-a", "other")
    found = filled(own, data, made)
    for figure, number in (("r1", 0), ("r5", 1)):
        cells = by_name(found, figure)
        assert ours(cells["ViT-B original"]) == pytest.approx(share("before", number))
        assert cells["ViT-B original"].change is None
        assert ours(cells["ViT-B ours"]) == pytest.approx(share("after", number))
        moves = [share(which, number) - share("before", number) for which in ("after", "other")]
        assert moved(cells["ViT-B ours"]) == pytest.approx(moves[0])
        assert moved(cells["DeiT-B ours"]) == pytest.approx(moves[1])
        change = cells["ViT-B ours"].change
        assert change is not None and change.low <= moves[0] <= change.high and change.low < change.high
        assert ours(cells["average change, ours"]) == pytest.approx(sum(moves) / 2)
    estimate = cells["ViT-B ours"].ours
    assert estimate is not None and estimate.low < estimate.value < estimate.high

    # Of one model alone: no claim, and the published average is that model's.
    only = by_name(found, col="imagenet-a")
    assert ours(only["average change, ours"]) == pytest.approx(share("before") - share("other"))
    assert only["average change, ours"].published == pytest.approx(24.1 - 16.0)
    assert only["DeiT-B ours"].state == "not run" and only["DeiT-B ours"].ours is None
    assert only["DeiT-B ours"].published == 17.2
    claims = {finding.says: finding for finding in found.findings}
    assert claims["ours gains on imagenet-a, averaged over the models"].verdict == "needs two models"
    assert by_name(found)["average change, ours"].published == pytest.approx(((80.3 - 81.5) + (80.5 - 80.8)) / 2)


def test_nothing_published_gets_into_what_was_measured(tmp_path: Path) -> None:
    for name in ("table1", "table2", "table3", "table4", "appendix_j"):
        data = Data("/data", models=PAPER_MODELS, found={IMAGENET_S: "/s"})
        plan, outcomes = not_run(REAL[name], data, "Traceback\nit broke")
        found = plan.results(outcomes, tmp_path)
        assert any(cell.published is not None for cell in found.cells)
        assert all(cell.ours is cell.change is None for cell in found.cells)
        assert {cell.state for cell in found.cells} == {"it broke"}
        assert all(finding.verdict == "not run" and finding.difference is None for finding in found.findings)
        assert all(value.ours is None for value in found.values)
        own = Data("/data", models=chosen_models(["mine=vit_tiny_patch16_224"]), found={IMAGENET_S: "/s"})
        plan, outcomes = not_run(REAL[name], own)
        assert all(cell.published is None for cell in plan.results(outcomes, tmp_path).cells)


@pytest.mark.parametrize(("table", "columns"), [(1, 12), (2, 6), (3, 3), (4, 9)])
def test_every_published_cell_stands_beside_its_row(table: int, columns: int, tmp_path: Path) -> None:
    """From the CSV itself: rows by the words of our tables."""
    words = {(arm.published[0], arm.published[1]): arm.name for arm in (*BASELINES, *REAL_ABLATION) if arm.published}
    words[("original", "none")] = "original"
    plan, outcomes = not_run(REAL[f"table{table}"], Data("/data", models=PAPER_MODELS, found={IMAGENET_S: "/s"}))
    rows = {(row.row, row.column, row.figure): row for row in plan.results(outcomes, tmp_path).cells}
    beside = {key: row.published for key, row in rows.items() if "average" not in key[0]}
    seen = 0
    with open(FOLDER / f"table{table}.csv", newline="") as file:
        for line in csv.DictReader(file):
            method = line.get("method") or line["variant"]
            masks = line.get("masks") or ("none" if method == "original" else "annotated")
            cells = [key for key in line if key not in ("model", "method", "variant", "masks")]
            assert len(cells) == columns
            for cell in cells:
                name, figure = (cell, "share") if table == 3 else (cell, "r1") if table == 4 else cell.rsplit("_", 1)
                key = (f"{line['model']} {words[method, masks]}", name, figure)
                assert beside.pop(key) == (float(line[cell]) if line[cell] else None), key
                seen += bool(line[cell])
    assert seen > 20
    assert all(value is None for value in beside.values()), "published figures that the paper does not have"


OWN_CLASS: Classes = [
    ("n01443537", (574,), 3),
    ("n01498041", (6, 574), 2),
    ("n03445777", (1, 574), 2),
]  # others are right, too


@pytest.mark.parametrize("classes", [BY_WNID, BY_INDEX, OWN_CLASS])
def test_classes_of_the_samples_against_the_rest(classes: Classes, made: Made) -> None:
    """Of 7 images the first 3 and the next 2 are of set A; by name, or by the index of the first right class."""
    own = Design((OURS,), ("imagenet",), groups=("all", "set_a", "rest"))
    (model,) = chosen_models(["ViT-B"])
    data = Data("/data", models=(model,))
    made.add(model, None, "imagenet", "before", classes)
    made.add(model, TUNED, "imagenet", "after", classes)
    found = filled(own, data, made, ("n01443537", "n01498041"))
    for group, images in (("all", range(7)), ("set_a", range(5)), ("rest", range(5, 7))):
        cell = by_name(found, group=group)["ViT-B ours"]
        assert ours(cell) == pytest.approx(share("after", 0, images))
        assert moved(cell) == pytest.approx(share("after", 0, images) - share("before", 0, images))
    none = filled(own, data, made, ("n02123045",))
    assert by_name(none, group="set_a")["ViT-B ours"].state == "no image of these classes"
    plan, outcomes = not_run(own, data)
    unknown = plan.results(outcomes | made.outcomes, made.out)  # the choice of samples was not made
    assert by_name(unknown, group="rest")["ViT-B ours"].state == "the classes of set A are not known"


def test_a_spread_is_over_runs(made: Made) -> None:
    own = REAL["appendix_f"]
    (model,) = chosen_models(["ViT-B"])
    data = Data("/data", models=(model,))
    which = ("after", "other", "before")
    for run, name in zip(own.runs()["ours, over choices of classes"], which, strict=True):
        made.add(model, run, "imagenet", name)
    made.add(model, None, "imagenet", "before")
    found = filled(own, data, made)
    cell = by_name(found)["ViT-B ours, over choices of classes"]
    values = [share(name) for name in which]
    mean = sum(values) / 3
    half = 4.302652729911275 * (sum((v - mean) ** 2 for v in values) / 2) ** 0.5 / 3**0.5  # t of 2 degrees of freedom
    assert cell.seeds == 3 and ours(cell) == pytest.approx(mean) and cell.ours is not None
    assert (cell.ours.low, cell.ours.high) == (pytest.approx(mean - half), pytest.approx(mean + half))
    assert moved(cell) == pytest.approx(mean - share("before"))
    runs = [v.ours.value for v in found.values if v.column == "imagenet" and v.row != "original" and v.ours]
    assert runs == [pytest.approx(v) for v in values]
    assert by_name(found)["ViT-B ours, over samples and seeds"].state == "not run"


def test_a_spread_is_over_as_many_runs_as_are_asked_for(made: Made) -> None:
    own = REAL["appendix_f"]
    models = chosen_models(["ViT-B"])
    for seeds, expected in ((None, 3), (2, 2), (7, 3)):
        data = Data("/data", models=models, seeds=seeds, found={IMAGENET_S: "/s"})
        trained = [job.key for job in plan_of(own, data).jobs() if job.function.endswith(":train")]
        assert len(trained) == 2 * expected  # of samples and seeds, and of choices of classes
        cells = filled(own, data, made).cells
        assert {cell.row for cell in cells} == {"ViT-B original", *(f"ViT-B {name}" for name in own.runs())}
    only = replace(data, seeds=1)
    for run in (None, *(runs[0] for runs in own.runs().values())):
        made.add(models[0], run, "imagenet", "after")
    assert (
        len([job for job in plan_of(own, only).jobs() if job.key.endswith("-on-imagenet")]) == 3 == len(made.outcomes)
    )
    cell = by_name(filled(own, only, made))["ViT-B ours, over choices of classes"]
    assert ours(cell) == pytest.approx(share("after"))


def test_figures_of_tests(tmp_path: Path) -> None:
    own = REAL["table3"]
    (model,) = chosen_models(["AR-S"])
    assert own.sets == (GTSEGS,)
    plan, outcomes = not_run(own, Data("/data", models=(model,)))
    before, after = (plan.source.tests(own, model, run)[GTSEGS].key for run in (None, TUNED))
    outcomes[before] = Outcome("done", {"pixel_accuracy": 70.0, "miou": 50.5})
    outcomes[after] = Outcome("done", {"pixel_accuracy": 81.5, "miou": 66.0, "map": 87.0})
    cells = {(cell.row, cell.column): cell for cell in plan.results(outcomes, tmp_path).cells}
    assert ours(cells["AR-S ours", "miou"]) == 66.0 and moved(cells["AR-S ours", "miou"]) == 15.5
    assert cells["AR-S ours", "miou"].published == 67.7 and cells["AR-S original", "miou"].published == 57.7
    assert cells["AR-S original", "map"].state == "segmentation gave no number here"
    assert ours(cells["AR-S ours", "map"]) == 87.0 and cells["AR-S ours", "map"].change is None


def test_claims_of_two_groups_of_classes(made: Made) -> None:
    """Figure 4 over two models: a claim for each group, with the t test's p over the models."""
    own = REAL["figure4"]
    data = Data("/data", models=MODELS)
    which = {MODELS[0]: ("before", "after"), MODELS[1]: ("other", "before")}
    for model, (before, after) in which.items():
        made.add(model, None, "objectnet", before)
        made.add(model, TUNED, "objectnet", after)
    found = filled(own, data, made, ("n01443537", "n01498041"))
    assert len(found.findings) == 2 * 7  # of nine sets, ImageNet and -v2 are none that it should gain on
    claims = {finding.says: finding for finding in found.findings if finding.verdict != "not run"}
    for says, images in (("classes of set A", range(5)), ("other classes", range(5, 7))):
        claim = claims.pop(f"ours gains on objectnet, averaged over the models, {says}")
        moves = [share(after, 0, images) - share(before, 0, images) for before, after in which.values()]
        assert claim.difference is not None
        assert claim.difference.value == pytest.approx(np.mean(moves)) and claim.count == 2
        assert claim.p == pytest.approx(stats.ttest_1samp(moves, 0.0).pvalue)
        assert claim.compared == f"ours less original, objectnet, R@1, {says}"
        assert claim.hypothesis.endswith("over DeiT-B, ViT-B")
    assert not claims
    assert len({finding.hypothesis for finding in found.findings}) == 14
    # A cell without a figure says what lacks; where all was measured, that no image is of these classes.
    assert by_name(found, group="rest", col="imagenet")["average change, ours"].state == "not run"
    none = filled(own, data, made, ("n02123045",))
    cell = by_name(none, group="set_a", col="objectnet")["average change, ours"]
    assert cell.state == "no model was measured before and after"


def protocol(name: str, *models: str) -> str:
    data = Data("/data", models=chosen_models(models), found={IMAGENET_S: "/s"})
    return plan_of(REAL[name], data).of_values([]).protocol


def test_tables_say_what_their_intervals_are_of() -> None:
    alone, images = "one fine-tuning with one seed", "are over the images alone"
    for name in ("table1", "table2", "table4", "appendix_d"):
        assert alone in protocol(name) and images in protocol(name), name
    for name in ("table3", "figure2"):
        assert alone in protocol(name) and "Wilson" not in protocol(name) and "Student" not in protocol(name)
    assert "there are no intervals" in protocol("table3")
    over_models = "an average change Student's t over the models, each with one seed"
    assert {name: over_models in protocol(name) for name in ("table1", "table2", "table4", "figure4")} == {
        "table1": True, "table2": True, "table4": False, "figure4": True,
    }  # fmt: skip
    assert images not in protocol("figure4") and "Wilson" not in protocol("figure4")  # it has no rows of models
    assert images not in protocol("appendix_f") and "Student's t over the runs" in protocol("appendix_f")


def test_tables_say_at_which_rates_and_weights_the_baselines_run() -> None:
    says = "GradMask and RRR run at the published learning rates of our method and at their default weights: the paper tuned"
    for name in ("table1", "table2", "appendix_d", "appendix_i"):
        assert says in protocol(name), name
    assert all("GradMask" not in protocol(name) for name in ("table3", "table4", "figure4", "appendix_h"))
    own = protocol("table1", "mine=vit_tiny_patch16_224")
    assert "GradMask and RRR run at rates of their own by the paper's rule (mine) and at their default" in own
    both = protocol("table1", "mine=vit_tiny_patch16_224", "AR-S")
    assert "at the published learning rates of our method or at rates of their own by the paper's rule (mine)" in both


# The page.


def test_words_of_the_page() -> None:
    assert [title(name) for name in ("table1", "figure4", "appendix_n", "beyond")] == [
        "Table 1", "Figure 4", "Appendix N", "Beyond",
    ]  # fmt: skip
    plain = {name: column(name).replace("\u2011", "-") for name in ("imagenet", "imagenet-a", "imagenet-sketch")}
    assert plain == {"imagenet": "ImageNet", "imagenet-a": "ImageNet-A", "imagenet-sketch": "ImageNet-Sketch"}
    assert column("imagenet-v2") == "ImageNet\u2011v2" and column("r5") == "R@5" and column("map") == "mAP"
    assert (
        column("si-score-location") == "SI\u2011Score location" and column("background_unseen") == "background unseen"
    )


def test_colours_of_changes() -> None:
    def row(low: float, high: float, seeds: int) -> Cell:
        change = Estimate(1.0, low, high, seeds or 7, "seeds" if seeds else "images")
        return Cell("a", "b", ours=Estimate(1.0, 1.0, 1.0, 1, "seeds"), change=change)

    assert kind(row(0.5, 2, 0)) == "better" and kind(row(-2, -1, 0)) == "worse"  # over images
    assert kind(row(-1, 2, 0)) == "open" and kind(row(0.5, 2, 3)) == "better"
    assert kind(row(1, 1, 1)) == "open"  # a single seed says nothing
