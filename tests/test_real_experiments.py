"""The paper's experiments on real data: what is found, which jobs there are, and tables from hand-made results."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from real_tree import TRAINING, make_tree, save_tiny
from relevit import cli
from relevit.errors import UserError
from relevit.evaluation import read_predictions
from relevit.experiments.engines import resolve
from relevit.experiments.filled import MEASURED, Data, Filled, Row
from relevit.experiments.jobs import Job, Outcome, in_order
from relevit.experiments.page import column, kind, title
from relevit.experiments.published import FOLDER
from relevit.experiments.real.declared import ABLATION, BASELINES, OURS, REAL
from relevit.experiments.real.measured_tables import MeasurementPlan
from relevit.experiments.real.models import PAPER_MODELS, chosen_models
from relevit.experiments.real.places import GTSEGS, IMAGENET_S, NEIGHBOURS, PUBLISHED_MASKS, TRAIN, find_places
from relevit.experiments.real.tables import AccuracyPlan
from relevit.experiments.real.variants import default_split, evaluation_key, measurement_key
from relevit.experiments.table import EXPERIMENTS

RECIPES = Path(__file__).parent.parent / "recipes"
LARGE_WEIGHTS = "jx_vit_large_p16_224-4ee7a4dc.pth"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("real") / "data")


# Models.


def test_the_models_are_those_of_the_recipes() -> None:
    recipes = [yaml.safe_load(path.read_text()) for path in sorted(RECIPES.glob("*.yaml"))]
    ours = {model.architecture: (model.lr, model.temperature) for model in PAPER_MODELS}
    assert {recipe["model"]: (recipe["lr"], recipe["temperature"]) for recipe in recipes} == ours
    assert len(ours) == 7 and [model.name for model in PAPER_MODELS if model.base] == ["ViT-B", "AR-B", "DeiT-B"]


def test_models_by_name_and_of_ones_own(tmp_path: Path) -> None:
    assert chosen_models([]) == PAPER_MODELS
    (tmp_path / "a.pth").touch()
    own, ar = chosen_models([f"mine=vit_tiny_patch16_224@{tmp_path / 'a.pth'}", "AR-S"])
    assert (own.name, own.architecture, own.lr, own.base) == ("mine", "vit_tiny_patch16_224", None, True)
    assert own.file == str(tmp_path / "a.pth") and ar is PAPER_MODELS[2]
    (renamed,) = chosen_models(["DeiT-S=vit_small_patch16_224"])  # rate and temperature stay the paper's
    assert (renamed.lr, renamed.temperature, renamed.architecture) == (1e-6, 0.55, "vit_small_patch16_224")

    (tmp_path / LARGE_WEIGHTS).touch()
    (tmp_path / "deit_base_patch16_224.fb_in1k.safetensors").touch()
    files = {model.name: model.file for model in chosen_models([], str(tmp_path)) if model.file}
    assert files == {
        "ViT-L": str(tmp_path / LARGE_WEIGHTS),
        "DeiT-B": str(tmp_path / "deit_base_patch16_224.fb_in1k.safetensors"),
    }
    assert PAPER_MODELS[1].need and chosen_models(["ViT-L"], str(tmp_path))[0].need is None


def test_jobs_know_weights_by_their_content(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"first")
    (tmp_path / "b.pth").write_bytes(b"other")
    (tmp_path / "moved.pth").write_bytes(b"first")
    a, b, moved = (
        chosen_models([f"m=vit_tiny_patch16_224@{tmp_path / name}.pth"])[0].spec() for name in ("a", "b", "moved")
    )
    assert a == moved and a != b
    assert "weights" not in PAPER_MODELS[0].spec()


@pytest.mark.parametrize(
    ("names", "weights", "says"),
    [
        (["ViT-H"], None, "--models has no 'ViT-H': choose among ViT-B, ViT-L"),
        (["a b=vit_tiny_patch16_224"], None, "must be NAME=ARCHITECTURE"),
        (["mine="], None, "must be NAME=ARCHITECTURE"),
        (["mine=vit_tiny_patch16_224@/nowhere/a.pth"], None, "no file /nowhere/a.pth"),
        (["mine=vit_tiny_patch16_224@/"], None, "the folder / holds no checkpoint"),
        (["AR-S", "AR-S"], None, "names AR-S twice"),
        ([], "/nowhere", "--weights /nowhere is no folder"),
    ],
)
def test_wrong_models_are_refused(names: list[str], weights: str | None, says: str) -> None:
    with pytest.raises(UserError) as error:
        chosen_models(names, weights)
    assert says in str(error.value)


# Places.


def test_what_lies_below_a_root(tree: Path) -> None:
    found, missing = find_places(str(tree), "paper", PAPER_MODELS)
    where = {name: str(Path(path).relative_to(tree)) for name, path in found.items()}
    assert where[IMAGENET_S] == "ImageNetS919" and where[TRAIN] == "ILSVRC2012/train"
    assert where[GTSEGS] == GTSEGS and where[NEIGHBOURS] == "knn"
    assert where["imagenet-a"] == "imagenet-a" and where["objectnet"] == "objectnet-1.0"
    assert where["si-score-rotation"] == "si-score/object_rotation"
    assert "imagenet-sketch" in missing and "imagenet-sketch" not in found
    assert "*_tokencut_bfs.pt" in missing[PUBLISHED_MASKS]
    assert LARGE_WEIGHTS in missing[f"weights of ViT-L ({LARGE_WEIGHTS})"]
    assert not set(found) & set(missing)


def test_published_masks_are_known_by_their_names(tmp_path: Path) -> None:
    file = tmp_path / "a" / "tokencut" / "n01440764" / "n01440764_7_tokencut_bfs.pt"
    file.parent.mkdir(parents=True)
    file.touch()
    found, missing = find_places(str(tmp_path), "paper", ())
    assert found[PUBLISHED_MASKS] == str(tmp_path / "a" / "tokencut") and PUBLISHED_MASKS not in missing
    assert all(name in missing for name in (IMAGENET_S, TRAIN, GTSEGS, NEIGHBOURS, "imagenet", "imagenet-a"))
    with pytest.raises(UserError, match="is no folder"):
        find_places(str(tmp_path / "b"), "paper", ())


# Jobs.


def all_data() -> Data:
    return Data("/data", protocol="paper", found={IMAGENET_S: "/data/s"})


@pytest.mark.parametrize("found", [{IMAGENET_S: "/s"}, {}, {PUBLISHED_MASKS: "/m"}])
def test_jobs_fit_together(found: Mapping[str, str]) -> None:
    """One key is one job in all experiments, whatever data there are; every dependency is among the jobs of its own experiment."""
    known: dict[str, Job] = {}
    sets = {*(f"si-score-{part}" for part in ("location", "rotation", "size")), *find_names()}
    for name, own in REAL.items():
        jobs = own.jobs(Data("/data", found=found))
        assert jobs and len({job.key for job in jobs}) == len(jobs), name
        assert {job.key for job in in_order(jobs)} == {job.key for job in jobs}
        for job in jobs:
            assert known.setdefault(job.key, job) == job, f"{name}: {job.key}"
            assert job.seconds > 0 and json.loads(json.dumps(job.arguments)) == job.arguments
            assert callable(resolve(job.function))
            assert all(need in sets or need.startswith("weights of ViT-L") for need in job.needs), job
    assert set(REAL) <= set(EXPERIMENTS)
    assert all(name in REAL for name in EXPERIMENTS if EXPERIMENTS[name].where != "not in the paper")


def find_names() -> set[str]:
    from relevit.data.benchmarks import BENCHMARKS

    return {*BENCHMARKS, IMAGENET_S, TRAIN, GTSEGS, PUBLISHED_MASKS, NEIGHBOURS}


def test_jobs_say_what_they_lack() -> None:
    """ViT-L without its file: none of its jobs can be run, all of the others' can."""
    data = Data("/data", found={IMAGENET_S: "/s"}, models=PAPER_MODELS[:3])
    for job in REAL["table1"].jobs(data):
        lacks = any(need.startswith("weights of ViT-L") for need in job.needs)
        assert lacks == job.key.startswith("ViT-L"), job.key


def test_the_papers_numbers_are_in_the_jobs() -> None:
    jobs = {job.key: job for job in REAL["table1"].jobs(all_data())}
    run = jobs["DeiT-B-ours-seed-0"].arguments
    assert run["settings"] == {"epochs": 50, "batch_size": 8}
    assert (run["model"]["lr"], run["model"]["temperature"], run["method"]) == (8e-7, 0.65, "relevance")
    split = jobs["samples-annotated-500x3"].arguments
    assert (split["classes"], split["per_class"], split["seed"], split["class_seed"]) == (500, 3, None, None)
    assert jobs["DeiT-B-ours_automatic_masks-seed-0"].arguments["masks"] == "automatic"
    assert len([key for key in jobs if "-on-" in key]) == 7 * 5 * 6
    small = all_data().__class__("/data", found={IMAGENET_S: "/s"}, settings={"epochs": 2, "classes": 7, "limit": 5})
    jobs = {job.key: job for job in REAL["appendix_n"].jobs(small)}
    assert jobs["DeiT-B-ours-seed-0"].arguments["settings"]["epochs"] == 2 and "samples-annotated-7x3" in jobs
    assert jobs["DeiT-B-ours-seed-0-perturbation-imagenet"].arguments["limit"] == 5


# Tables from hand-made results.

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
        assert {row.state for row in found.rows} <= {"it broke", "no model was measured before and after"}
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


# The command.


def command(tree: Path, out: Path, *names: str) -> list[str]:
    place = tree.parent
    tiny, backbone = (f"vit_tiny_patch16_224@{place / name}" for name in ("tiny", "backbone"))
    models = [f"ViT-B={tiny}", f"DeiT-S={tiny}"]
    return [
        "reproduce", *names, "--data", str(tree), "--out", str(out), "--models", *models, "--epochs", "1", "--classes", "2",
        "--limit", "4", "--mask-model", str(place / "backbone"), "--self-supervised", f"bb={backbone}", "--workers", "2",
    ]  # fmt: skip


def called(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
        raise SystemExit(0)
    return int(ended.value.code or 0)


def test_the_dry_run_tells_what_there_is_and_estimates(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tree.parent
    for name, classes in (("tiny", 1000), ("backbone", 0)):
        if not (place / name).exists():
            save_tiny(place / name, classes)
    assert called([*command(tree, place / "out", "table1", "appendix_m"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"found imagenet-a: {tree / 'imagenet-a'}" in said and "not there, imagenet-sketch: " in said
    assert "ViT-B-gradmask-seed-0-on-imagenet-a" in said and "no data: imagenet-sketch" in said
    assert "DeiT-S-ours-seed-0-knn-k-NN" not in said  # appendix M is of the base models
    assert "ViT-B-ours-seed-0-knn-k-NN" in said
    assert "a rough estimate; GPUs were not measured" in said and "CPU core" in said
    assert not (place / "out").exists()


def recount(out: Path, rows: list[dict[str, Any]]) -> int:
    """What was measured is counted again from the rows of the images; how many cells that were."""
    words = {"original": "original", "ours": "ours-seed-0", "ours, automatic masks": "ours_automatic_masks-seed-0"}
    counted = 0
    for row in rows:
        model, _, way = row["row"].partition(" ")
        if row["state"] != MEASURED or model == "average":
            continue
        key = f"{model}-{words.get(way, way + '-seed-0')}-on-{row['column']}"
        found = read_predictions(out / "evaluations" / key / "predictions" / row["column"] / "model")
        right = sum(
            any(c in answer for c in five[: int(row["figure"][1])])
            for answer, five in zip(found.answers, found.top5.tolist(), strict=True)
        )
        assert row["ours"] == pytest.approx(100 * right / len(found.keys)), row
        counted += 1
    return counted


@pytest.mark.slow
def test_experiments_on_the_tree_from_end_to_end(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Masks, samples, fine-tunings, evaluations, tests and pages with tiny models; the second call runs nothing."""
    for name, classes in (("tiny", 1000), ("backbone", 0)):
        if not (tree.parent / name / "config.json").exists():
            save_tiny(tree.parent / name, classes)
    out = tmp_path / "out"
    arguments = command(tree, out, "table1", "table3", "figure2", "appendix_m", "appendix_l")
    assert called(arguments) == 1  # Sketch is not there
    said = capsys.readouterr().out
    content = json.loads((out / "results.json").read_text())
    assert content["about"]["jobs"]["failed"] == 0, said
    rows = [row for own in content["experiments"].values() for row in own["rows"]]
    for row in rows:
        if row["state"] == MEASURED:
            assert isinstance(row["ours"], float), row
        elif row["column"] == "imagenet-sketch":
            assert "imagenet-sketch" in row["state"] or "no model was measured" in row["state"], row
        else:
            assert row["group"] != "all" or row["state"] in ("segmentation gave no number here",), row
        assert (row["ours"] is None) == (row["state"] != MEASURED)
    assert any(row["published"] is not None and row["published"] != row["ours"] for row in rows)
    counted = recount(out, [*content["experiments"]["table1"]["rows"], *content["experiments"]["appendix_l"]["rows"]])
    assert counted > 100
    page = (out / "report.html").read_text()
    link = "effects/ViT-B-ours-seed-0-effects-on-imagenet/effects.html"
    assert f'href="{link}"' in page and "ViT-B original" in (out / link).read_text()

    written = {path: path.read_bytes() for path in (out / "jobs").glob("*.json")}
    table = (out / "results.csv").read_bytes()
    assert called(arguments) == 1
    assert "0 to do" in capsys.readouterr().out.split("runs:")[1].splitlines()[0]
    assert written == {path: path.read_bytes() for path in (out / "jobs").glob("*.json")}
    assert (out / "results.csv").read_bytes() == table
    assert called([*arguments, "--dry-run", "--epochs", "2"]) == 2  # another setting wants another folder
