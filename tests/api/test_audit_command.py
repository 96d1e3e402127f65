"""`relevit audit` on small folders: the page holds the figures of the JSON, masks are made where there are none, and faults are one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit_pictures import write
from relevit.auditing.conditions import CONDITIONS
from relevit.cli import main
from relevit.data.builtin import digits as benchmark
from relevit.report.words import number


def digits(folder: Path, each: int, classes: int = 3, views: int = 1) -> tuple[Path, Path]:
    """Pictures of the built-in benchmark in folders of class indices, and their masks."""
    pictures = benchmark.test_set("in_distribution", "test", views)
    for label in range(classes):
        for place in np.flatnonzero(pictures.labels == label)[:each]:
            for kind, values in (
                ("images", pictures.images[place]),
                ("masks", np.round(255 * pictures.masks[place]).astype(np.uint8)),
            ):
                path = folder / kind / str(label) / f"{place:05d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)
    return folder / "images", folder / "masks"


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(each) for each in arguments])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_the_page_holds_the_figures_of_the_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, masks = digits(tmp_path, 4)
    (images / "0" / "broken.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(images / "0" / "unmasked.png")
    out = tmp_path / "audit"
    models = ["one=builtin", "two=builtin"]
    main(["audit", *models, "--images", str(images), "--masks", str(masks), "--out", str(out), "--workers", "1"])
    printed = capsys.readouterr()
    content = json.loads((out / "audit.json").read_text())
    html = (out / "audit.html").read_text()
    assert content["pictures"] == 12 and content["classes"] == 3 and content["masks"] == "given"
    assert sorted(Path(each["file"]).name for each in content["left_out"]) == ["broken.png", "unmasked.png"]
    assert "left out: 0/broken.png" in printed.err and "2 pictures are left out" in html
    for name, each in content["models"].items():
        assert set(each["accuracy"]) == set(CONDITIONS)
        for figures in (*each["accuracy"].values(), each["relevance_on_background"], each["area_of_background"]):
            low, high = (number(end) for end in figures["interval"])
            assert f">{number(figures['percent'])}<" in html and f"{low} to {high}" in html
        for sentence in each["verdict"]["sentences"]:
            assert sentence in html and sentence in printed.out
        assert name in html and each["verdict"]["outcome"] in html
        for one in each["classes"]:
            assert f">{number(one['fall']['points'])}<" in html
    assert content["models"]["two"]["effect_minus_first"]["points"] == 0
    assert content["rule"][:40] in html
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)  # nothing is fetched
    assert all(re.search(r'alt="[^"]+"', tag) for tag in re.findall(r"<img [^>]+>", html))
    assert html.count("<img") >= len(CONDITIONS)
    text = fails(capsys, "audit", "builtin", "--images", images, "--masks", masks, "--out", out)
    assert "is finished, audit.json is there already" in text


def test_masks_are_made_where_there_are_none_and_found_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, _ = digits(tmp_path, 2, classes=2)
    Image.fromarray(np.full((48, 48, 3), 90, np.uint8)).save(images / "0" / "nothing.png")  # no object in it
    out = tmp_path / "audit"
    main(["audit", "builtin", "--images", str(images), "--out", str(out), "--workers", "1"])
    content = json.loads((out / "audit.json").read_text())
    assert content["masks"] == "automatic" and content["pictures"] + len(content["left_out"]) == 5
    assert "0/nothing.png" in [each["file"] for each in content["left_out"]]
    made = sorted(path.relative_to(out / "masks").as_posix() for path in (out / "masks").rglob("*.png"))
    assert len(made) == 4 and made[-1].startswith("1/")
    assert len((out / "masks" / "masks.csv").read_text().splitlines()) == 1 + 5
    assert "TokenCut" in (out / "audit.html").read_text()
    for name in ("audit.html", "audit.json", "images.csv"):  # as if it had been stopped
        (out / name).unlink()
    times = {path: path.stat().st_mtime_ns for path in (out / "masks").rglob("*.png")}
    main(["audit", "builtin", "--images", str(images), "--out", str(out), "--workers", "1"])
    assert {path: path.stat().st_mtime_ns for path in (out / "masks").rglob("*.png")} == times
    assert json.loads((out / "audit.json").read_text())["models"] == content["models"]
    for name in ("audit.html", "audit.json"):
        (out / name).unlink()
    (out / "images.csv").unlink()
    text = fails(capsys, "audit", "builtin", "--images", images.parent / "masks", "--out", out)
    assert "was begun with another configuration: images" in text


def test_pictures_without_classes(tmp_path: Path) -> None:
    images, masks = digits(tmp_path, 4, classes=3)
    for kind in (images, masks):
        for path in list(kind.rglob("*.png")):
            path.rename(kind / path.name)
    out = tmp_path / "audit"
    main(
        [
            "audit",
            "builtin",
            "--images",
            str(images),
            "--masks",
            str(masks),
            "--limit",
            "9",
            "--out",
            str(out),
            "--workers",
            "1",
        ]
    )
    content = json.loads((out / "audit.json").read_text())
    assert content["classes_from"] == "predicted" and content["pictures"] == 9
    assert content["models"]["builtin"]["accuracy"]["original"]["percent"] == 100
    assert "The classes of the pictures are not known" in (out / "audit.html").read_text()


@pytest.mark.parametrize(
    "arguments, part",
    [
        (["--images", "nowhere"], "there is no folder nowhere"),
        (["--images", "images", "--masks", "nowhere"], "--masks: there is no folder nowhere"),
        (["--images", "images", "--masks", "empty"], "none of the 6 pictures"),
        (["--images", "empty", "--masks", "masks"], "holds no pictures"),
        (["--images", "mixed", "--masks", "masks"], "others in class folders"),
        (["--images", "images", "--masks", "masks", "--out", "images/audit"], "lies in the folder of images"),
        (["--images", "images", "--masks", "masks", "--out", "masks"], "not empty"),
        (["--images", "images", "--masks", "masks", "--out", "file"], "is a file"),
        (["--images", "images", "--masks", "masks", "--mask-model", "builtin"], "give it or --masks"),
        (["--images", "builtin", "--masks", "masks"], "exact masks"),
        (["--images", "images", "--masks", "masks", "--limit", "1"], "limit must be at least 2"),
        (["--images", "images", "--masks", "masks", "--labels", "words"], "--labels"),
        (["--images", "named", "--masks", "named"], "no class of the model"),
        (["builtin", "--images", "images"], "two models are called builtin"),
        ([], "--images is required"),
    ],
)
def test_faults_are_one_line(
    tmp_path: Path, arguments: list[str], part: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "mixed" / "0").mkdir(parents=True)
    for name in ("mixed/0/a.png", "mixed/b.png"):
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / name)
    for suffix, values in (("jpg", np.zeros((9, 9, 3), np.uint8)), ("png", np.eye(9, dtype=np.uint8) * 255)):
        (tmp_path / "named" / "cat").mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(tmp_path / "named" / "cat" / f"a.{suffix}")
    text = fails(capsys, "audit", "builtin", *arguments)
    assert part in text and len(text.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_builtin_by_its_name(tmp_path: Path) -> None:
    out = tmp_path / "audit"
    main(["audit", "builtin", "--images", "builtin", "--limit", "20", "--out", str(out), "--workers", "1"])
    content = json.loads((out / "audit.json").read_text())
    assert content["masks"] == "exact" and content["pictures"] == 20 and content["classes"] == len(benchmark.CLASSES)
