"""The paper's experiments on real data: what is found, which jobs there are, and tables from hand-made results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from real_tree import make_tree, save_tiny
from relevit import cli
from relevit.errors import UserError
from relevit.evaluation import read_predictions
from relevit.experiments.engines import resolve
from relevit.experiments.experiment import Data
from relevit.experiments.jobs import Job, in_order
from relevit.experiments.paper import PAPER
from relevit.experiments.results import MEASURED
from relevit.experiments.sources.models import PAPER_MODELS, chosen_models
from relevit.experiments.sources.places import GTSEGS, IMAGENET_S, NEIGHBOURS, PUBLISHED_MASKS, TRAIN, find_places
from relevit.experiments.table import plan_for

REAL = [name for name, row in PAPER.items() if row.real is not None]
RECIPES = Path(__file__).parents[2] / "recipes"
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
    for name in REAL:
        jobs = plan_for(name, Data("/data", found=found)).jobs()
        assert jobs and len({job.key for job in jobs}) == len(jobs), name
        assert {job.key for job in in_order(jobs)} == {job.key for job in jobs}
        for job in jobs:
            assert known.setdefault(job.key, job) == job, f"{name}: {job.key}"
            assert job.seconds > 0 and json.loads(json.dumps(job.arguments)) == job.arguments
            assert callable(resolve(job.function))
            assert all(need in sets or need.startswith("weights of ViT-L") for need in job.needs), job
    assert all(name in REAL for name in PAPER if PAPER[name].where != "not in the paper")


def find_names() -> set[str]:
    from relevit.data.benchmarks import BENCHMARKS

    return {*BENCHMARKS, IMAGENET_S, TRAIN, GTSEGS, PUBLISHED_MASKS, NEIGHBOURS}


def test_jobs_say_what_they_lack() -> None:
    """ViT-L without its file: none of its jobs can be run, all of the others' can."""
    data = Data("/data", found={IMAGENET_S: "/s"}, models=PAPER_MODELS[:3])
    for job in plan_for("table1", data).jobs():
        lacks = any(need.startswith("weights of ViT-L") for need in job.needs)
        assert lacks == job.key.startswith("ViT-L"), job.key


def test_the_papers_numbers_are_in_the_jobs() -> None:
    jobs = {job.key: job for job in plan_for("table1", all_data()).jobs()}
    run = jobs["DeiT-B-ours-seed-0"].arguments
    assert run["settings"] == {"epochs": 50, "batch_size": 8}
    assert (run["model"]["lr"], run["model"]["temperature"], run["method"]) == (8e-7, 0.65, "relevance")
    split = jobs["samples-annotated-500x3"].arguments
    assert (split["classes"], split["per_class"], split["seed"], split["class_seed"]) == (500, 3, None, None)
    assert jobs["DeiT-B-ours_automatic_masks-seed-0"].arguments["masks"] == "automatic"
    assert len([key for key in jobs if "-on-" in key]) == 7 * 5 * 6
    small = all_data().__class__("/data", found={IMAGENET_S: "/s"}, settings={"epochs": 2, "classes": 7, "limit": 5})
    jobs = {job.key: job for job in plan_for("appendix_n", small).jobs()}
    assert jobs["DeiT-B-ours-seed-0"].arguments["settings"]["epochs"] == 2 and "samples-annotated-7x3" in jobs
    assert jobs["DeiT-B-ours-seed-0-perturbation-imagenet"].arguments["limit"] == 5


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
