"""Tables and claims on real data from hand-made results, beside the published figures; words of their page."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from real_tree import TRAINING
from relevit.experiments.filled import MEASURED, Data, Filled, Row
from relevit.experiments.jobs import Outcome
from relevit.experiments.page import column, kind, title
from relevit.experiments.published import FOLDER
from relevit.experiments.real.declared import ABLATION, BASELINES, OURS, REAL
from relevit.experiments.real.measured_tables import MeasurementPlan
from relevit.experiments.real.models import PAPER_MODELS, chosen_models
from relevit.experiments.real.places import GTSEGS, IMAGENET_S
from relevit.experiments.real.tables import AccuracyPlan
from relevit.experiments.real.variants import default_split, evaluation_key, measurement_key

HITS = {  # of 7 images: 3 of n01443537, 2 of n01498041, 2 of n03445777
    "before": ("1001000", "1111000"),
    "after": ("1011001", "1111011"),
    "other": ("0001110", "0011110"),
}
BY_WNID = [["n01443537", [1], 3], ["n01498041", [6], 2], ["n03445777", [574], 2]]
BY_INDEX = [["goldfish", [1], 3], ["ray", [6, 7], 2], ["ball", [574], 2]]
MODELS = chosen_models(["ViT-B", "DeiT-B"])


def bits(text: str) -> str:
    return "".join(f"{int(text[i : i + 8].ljust(8, '0'), 2):02x}" for i in range(0, len(text), 8))


def done(which: str, classes: list[Any] = BY_WNID) -> Outcome:
    first, five = HITS[which]
    return Outcome("done", {"images": 7, "hits": {"r1": bits(first), "r5": bits(five)}, "classes": classes})


def share(which: str, figure: int = 0, images: range = range(7)) -> float:
    return 100 * sum(HITS[which][figure][i] == "1" for i in images) / len(images)


def filled(
    own: AccuracyPlan, data: Data, given: Mapping[str, Outcome], set_a: tuple[str, ...] = TRAINING[:1]
) -> Filled:
    """Everything that is not given was not run."""
    outcomes = {job.key: Outcome("skipped", reason="not run") for job in own.jobs(data)}
    outcomes[default_split(data)] = Outcome("done", {"set_a": list(set_a)})
    assert set(given) <= set(outcomes)
    return own.fill(outcomes | dict(given), data)


def by_name(found: Filled, figure: str = "r1", group: str = "all", col: str = "imagenet") -> dict[str, Row]:
    return {row.row: row for row in found.rows if (row.figure, row.group, row.column) == (figure, group, col)}


def test_accuracies_and_changes_by_hand() -> None:
    own = AccuracyPlan((OURS,), ("imagenet", "imagenet-a"), ("r1", "r5"), table=1, averages=True)
    data = Data("/data", models=MODELS)
    vit, deit = MODELS
    given = {
        evaluation_key(vit, None, "imagenet"): done("before"),
        evaluation_key(vit, OURS, "imagenet"): done("after"),
        evaluation_key(deit, None, "imagenet"): done("before"),
        evaluation_key(deit, OURS, "imagenet"): done("other"),
        evaluation_key(vit, None, "imagenet-a"): done("other"),
        evaluation_key(vit, OURS, "imagenet-a"): done("before"),
        evaluation_key(deit, None, "imagenet-a"): done("other"),
    }
    found = filled(own, data, given)
    for figure, number in (("r1", 0), ("r5", 1)):
        rows = by_name(found, figure)
        assert rows["ViT-B original"].ours == pytest.approx(share("before", number))
        assert rows["ViT-B original"].change is None
        assert rows["ViT-B ours"].ours == pytest.approx(share("after", number))
        moves = [share(which, number) - share("before", number) for which in ("after", "other")]
        assert rows["ViT-B ours"].change == pytest.approx(moves[0])
        assert rows["DeiT-B ours"].change == pytest.approx(moves[1])
        low, high = rows["ViT-B ours"].change_low, rows["ViT-B ours"].change_high
        assert low is not None and high is not None and low <= moves[0] <= high
        mean = rows["average change, ours"]
        assert mean.ours == pytest.approx(sum(moves) / 2)
    assert rows["ViT-B ours"].low < rows["ViT-B ours"].ours < rows["ViT-B ours"].high  # type: ignore[operator]

    # Of one model alone: no claim, and the published average is that model's.
    only = by_name(found, col="imagenet-a")
    assert only["average change, ours"].ours == pytest.approx(share("before") - share("other"))
    assert only["average change, ours"].published == pytest.approx(24.1 - 16.0)
    assert only["DeiT-B ours"].state == "not run" and only["DeiT-B ours"].ours is None
    assert only["DeiT-B ours"].published == 17.2
    claims = {finding.says: finding for finding in found.findings}
    assert claims["ours gains on imagenet-a, averaged over the models"].verdict == "needs two models"
    assert by_name(found)["average change, ours"].published == pytest.approx(((80.3 - 81.5) + (80.5 - 80.8)) / 2)


def test_nothing_published_gets_into_what_was_measured() -> None:
    for name in ("table1", "table2", "table3", "table4", "appendix_j"):
        data = Data("/data", models=PAPER_MODELS, found={IMAGENET_S: "/s"})
        outcomes = {job.key: Outcome("failed", reason="Traceback\nit broke") for job in REAL[name].jobs(data)}
        found = REAL[name].fill(outcomes, data)
        assert any(row.published is not None for row in found.rows)
        assert all(row.ours is row.low is row.change is None for row in found.rows)
        assert {row.state for row in found.rows} == {"it broke"}
        assert all(finding.verdict == "not run" and finding.mean is None for finding in found.findings)
        assert not found.runs
        own = Data("/data", models=chosen_models(["mine=vit_tiny_patch16_224"]), found={IMAGENET_S: "/s"})
        outcomes = {job.key: Outcome("skipped", reason="no") for job in REAL[name].jobs(own)}
        assert all(row.published is None for row in REAL[name].fill(outcomes, own).rows)


@pytest.mark.parametrize(("table", "columns"), [(1, 12), (2, 6), (3, 3), (4, 9)])
def test_every_published_cell_stands_beside_its_row(table: int, columns: int) -> None:
    """From the CSV itself: rows by the words of our tables."""
    words = {
        (variant.published[0], variant.published[1]): variant.name
        for variant in (*BASELINES, *ABLATION)
        if variant.published
    }
    words[("original", "none")] = "original"
    own = REAL[f"table{table}"]
    data = Data("/data", models=PAPER_MODELS, found={IMAGENET_S: "/s"})
    outcomes = {job.key: Outcome("skipped", reason="not run") for job in own.jobs(data)}
    rows = {(row.row, row.column, row.figure): row for row in own.fill(outcomes, data).rows}
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


OWN_CLASS = [["n01443537", [574], 3], ["n01498041", [6, 574], 2], ["n03445777", [1, 574], 2]]  # others are right, too


@pytest.mark.parametrize("classes", [BY_WNID, BY_INDEX, OWN_CLASS])
def test_classes_of_the_samples_against_the_rest(classes: list[Any]) -> None:
    """Of 7 images the first 3 and the next 2 are of set A; by name, or by the index of the first right class."""
    own = AccuracyPlan((OURS,), ("imagenet",), ("r1",), ("all", "set_a", "rest"))
    (model,) = chosen_models(["ViT-B"])
    data = Data("/data", models=(model,))
    given = {
        evaluation_key(model, None, "imagenet"): done("before", classes),
        evaluation_key(model, OURS, "imagenet"): done("after", classes),
    }
    found = filled(own, data, given, ("n01443537", "n01498041"))
    for group, images in (("all", range(7)), ("set_a", range(5)), ("rest", range(5, 7))):
        row = by_name(found, group=group)["ViT-B ours"]
        assert row.ours == pytest.approx(share("after", 0, images))
        assert row.change == pytest.approx(share("after", 0, images) - share("before", 0, images))
    none = filled(own, data, given, ("n02123045",))
    assert by_name(none, group="set_a")["ViT-B ours"].state == "no image of these classes"
    outcomes = {job.key: Outcome("skipped", reason="not run") for job in own.jobs(data)} | given
    unknown = own.fill(outcomes, data)  # the choice of samples was not made
    assert by_name(unknown, group="rest")["ViT-B ours"].state == "the classes of set A are not known"


def test_a_spread_is_over_runs() -> None:
    own = REAL["appendix_f"]
    assert isinstance(own, AccuracyPlan)
    (model,) = chosen_models(["ViT-B"])
    data = Data("/data", models=(model,))
    names = own.spread["ours, over choices of classes"] if own.spread else ()
    variants = [variant for name in names for variant in own.variants if variant.name == name]
    which = ("after", "other", "before")
    given = {evaluation_key(model, v, "imagenet"): done(w) for v, w in zip(variants, which, strict=True)}
    given[evaluation_key(model, None, "imagenet")] = done("before")
    found = filled(own, data, given)
    row = by_name(found)["ViT-B ours, over choices of classes"]
    values = [share(name) for name in which]
    mean = sum(values) / 3
    half = 4.302652729911275 * (sum((v - mean) ** 2 for v in values) / 2) ** 0.5 / 3**0.5  # t of 2 degrees of freedom
    assert row.seeds == 3 and row.ours == pytest.approx(mean)
    assert (row.low, row.high) == (pytest.approx(mean - half), pytest.approx(mean + half))
    assert row.change == pytest.approx(mean - share("before"))
    assert [run["value"] for run in found.runs if run["set"] == "imagenet"] == [pytest.approx(v) for v in values]
    assert by_name(found)["ViT-B ours, over samples and seeds"].state == "not run"


def test_a_spread_is_over_as_many_runs_as_are_asked_for() -> None:
    own = REAL["appendix_f"]
    models = chosen_models(["ViT-B"])
    for seeds, expected in ((None, 3), (2, 2), (7, 3)):
        data = Data("/data", models=models, seeds=seeds, found={IMAGENET_S: "/s"})
        trained = [job.key for job in own.jobs(data) if job.function.endswith(":train")]
        assert len(trained) == 2 * expected  # of samples and seeds, and of choices of classes
        rows = filled(own, data, {}).rows
        assert {row.row for row in rows} == {"ViT-B original", *(f"ViT-B {name}" for name in own.spread)}  # type: ignore[attr-defined]
    only = replace(data, seeds=1)
    given = {job.key: done("after") for job in own.jobs(only) if job.key.endswith("-on-imagenet")}
    assert len(given) == 3
    assert by_name(filled(own, only, given))["ViT-B ours, over choices of classes"].ours == pytest.approx(
        share("after")
    )


def test_figures_of_tests() -> None:
    own = REAL["table3"]
    assert isinstance(own, MeasurementPlan)
    (model,) = chosen_models(["AR-S"])
    data = Data("/data", models=(model,))
    outcomes = {job.key: Outcome("skipped", reason="not run") for job in own.jobs(data)}
    before, after = (measurement_key(model, variant, "segmentation", GTSEGS) for variant in (None, OURS))
    outcomes[before] = Outcome("done", {"pixel_accuracy": 70.0, "miou": 50.5})
    outcomes[after] = Outcome("done", {"pixel_accuracy": 81.5, "miou": 66.0, "map": 87.0})
    rows = {(row.row, row.column): row for row in own.fill(outcomes, data).rows}
    assert rows["AR-S ours", "miou"].ours == 66.0 and rows["AR-S ours", "miou"].change == 15.5
    assert rows["AR-S ours", "miou"].published == 67.7 and rows["AR-S original", "miou"].published == 57.7
    assert rows["AR-S original", "map"].state == "segmentation gave no number here"
    assert rows["AR-S ours", "map"].ours == 87.0 and rows["AR-S ours", "map"].change is None


def test_claims_of_two_groups_of_classes() -> None:
    """Figure 4 over two models: a claim for each group, with the t test's p over the models."""
    own = REAL["figure4"]
    assert isinstance(own, AccuracyPlan)
    data = Data("/data", models=MODELS)
    which = {MODELS[0]: ("before", "after"), MODELS[1]: ("other", "before")}
    given = {evaluation_key(model, None, "objectnet"): done(before) for model, (before, _) in which.items()}
    given |= {evaluation_key(model, OURS, "objectnet"): done(after) for model, (_, after) in which.items()}
    found = filled(own, data, given, ("n01443537", "n01498041"))
    assert len(found.findings) == 2 * 7  # of nine sets, ImageNet and -v2 are none that it should gain on
    claims = {finding.says: finding for finding in found.findings if finding.verdict != "not run"}
    for says, images in (("classes of set A", range(5)), ("other classes", range(5, 7))):
        claim = claims.pop(f"ours gains on objectnet, averaged over the models, {says}")
        moves = [share(after, 0, images) - share(before, 0, images) for before, after in which.values()]
        assert claim.mean == pytest.approx(np.mean(moves)) and claim.seeds == 2
        assert claim.p == pytest.approx(stats.ttest_1samp(moves, 0.0).pvalue)
        assert claim.compared == f"ours less original, objectnet, R@1, {says}"
        assert claim.hypothesis.endswith("over DeiT-B, ViT-B")
    assert not claims
    assert len({finding.hypothesis for finding in found.findings}) == 14
    # A cell without a figure says what lacks; where all was measured, that no image is of these classes.
    assert by_name(found, group="rest", col="imagenet")["average change, ours"].state == "not run"
    none = filled(own, data, given, ("n02123045",))
    row = by_name(none, group="set_a", col="objectnet")["average change, ours"]
    assert row.state == "no model was measured before and after"


def protocol(name: str, *models: str) -> str:
    data = Data("/data", models=chosen_models(models), found={IMAGENET_S: "/s"})
    outcomes = {job.key: Outcome("skipped", reason="not run") for job in REAL[name].jobs(data)}
    return REAL[name].fill(outcomes, data).protocol


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
    def row(low: float, high: float, seeds: int) -> Row:
        return Row("a", "b", ours=1.0, state=MEASURED, change=1.0, change_low=low, change_high=high, seeds=seeds)

    assert kind(row(0.5, 2, 0)) == "better" and kind(row(-2, -1, 0)) == "worse"  # over images
    assert kind(row(-1, 2, 0)) == "open" and kind(row(0.5, 2, 3)) == "better"
    assert kind(row(1, 1, 1)) == "open"  # a single seed says nothing
