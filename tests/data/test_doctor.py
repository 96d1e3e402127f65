"""diagnosis.py of data: every finding on a minimal case, and nothing found where nothing is odd."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inspected_pictures import HEIGHT, LEFT, RIGHT, TOP, WIDTH, mask, picture
from odd_files import save
from relevit.data.manifest import Row, write_manifest
from relevit.diagnosis import Diagnosis, Finding, Where, examine_data
from relevit.errors import UserError
from relevit.training.samples import gather
from tiny_run import tiny_model


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of three good samples each, of which nothing is to be told."""
    for seed in range(6):
        write(tmp_path, f"{seed // 3}/{seed}", picture(seed), mask(seed))
    return tmp_path


def write(root: Path, name: str, image: np.ndarray | None, its_mask: np.ndarray | None, ending: str = "png") -> None:
    if image is not None:
        save(root / "images" / f"{name}.{ending}", image)
    if its_mask is not None:
        save(root / "masks" / f"{name}.png", its_mask)


def examine(root: Path, **options: object) -> dict[str, Finding]:
    found = examine_data(root / "images", root / "masks", **options).findings  # type: ignore[arg-type]
    assert len({finding.kind for finding in found}) == len(found)
    return {finding.kind: finding for finding in found}


def names(finding: Finding) -> list[str]:
    return [Path(where.file).name for where in finding.where]


def test_of_a_good_set_there_is_nothing_to_tell(root: Path) -> None:
    diagnosis = examine_data(root / "images", root / "masks", model=tiny_model(num_classes=7))
    assert diagnosis.findings == [] and not diagnosis.stops
    assert diagnosis.facts == {
        "images": "6 with a mask, 6 of them good",
        "classes": "2 folders matched by index; 5 of the model's 7 classes have no folder",
    }


def test_faults_are_grouped_by_kind_and_stop_a_run(root: Path) -> None:
    write(root, "0/x", picture(10), None)
    write(root, "0/y", picture(11), None)
    write(root, "1/z", picture(12), 0 * mask())
    write(root, "emu/1", picture(13), mask()[:5])
    calls: list[tuple[int, int]] = []
    diagnosis = examine_data(
        root / "images",
        root / "masks",
        model=tiny_model(),
        workers=2,
        progress=lambda count, total: calls.append((count, total)),
    )
    faults = {finding.kind: finding for finding in diagnosis.findings if finding.level == "fault"}
    assert {kind: names(finding) for kind, finding in faults.items()} == {
        "missing mask": ["x.png", "y.png"],
        "unknown class": ["emu"],
        "empty mask": ["z.png"],
        "mask of another size": ["1.png"],  # of an image whose class is unknown
    }
    assert faults["mask of another size"].where[0].detail == f"{WIDTH} x 5, its image {WIDTH} x {HEIGHT}"
    assert "neither a wnid nor a class index" in faults["unknown class"].where[0].detail
    assert diagnosis.stops and diagnosis.facts["images"] == "8 with a mask, 6 of them good"
    assert calls == [(1, 8)] * 8


def test_faults_come_first_then_warnings_then_notes(root: Path) -> None:
    write(root, "0/x", picture(10)[..., 0], np.full((HEIGHT, WIDTH), 255, np.uint8))
    write(root, "0/y", picture(11), None)
    levels = [finding.level for finding in examine_data(root / "images", root / "masks").findings]
    assert levels == ["fault", "warning", "note"]


def test_a_label_outside_the_models_classes_is_a_fault(root: Path) -> None:
    write(root, "5/x", picture(10), mask())
    found = examine(root, model=tiny_model())  # of five classes
    assert found["unknown class"].level == "fault" and names(found["unknown class"]) == ["5"]
    assert "class 5 is not among the model's 5 classes" in found["unknown class"].where[0].detail
    assert "unknown class" not in examine(root, model=tiny_model(num_classes=6))


def test_nothing_to_read_is_a_fault_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    assert names(examine(tmp_path)["no images"]) == ["images"]
    write(tmp_path, "stray", picture(0), mask())
    assert names(examine(tmp_path)["unknown class"]) == ["stray.png"]
    write(tmp_path, "0/a", picture(0), None)
    assert set(examine(tmp_path)) == {"unknown class", "missing mask"}
    with pytest.raises(UserError, match="no folder"):
        examine_data(tmp_path / "none")
    with pytest.raises(UserError, match="no folder"):
        examine_data(tmp_path / "images", tmp_path / "none")
    with pytest.raises(UserError, match=r"map\.json"):
        examine(tmp_path, class_map=tmp_path / "map.json")


def test_regions_to_ignore_are_checked_and_a_manifest_chooses(root: Path) -> None:
    save(root / "ignore/0/0.png", 0 * mask())  # nothing to ignore is no fault
    save(root / "ignore/0/1.png", mask()[:5])
    save(root / "ignore/1/4.png", picture(0))
    found = examine(root, ignore=root / "ignore")
    assert names(found["mask of another size"]) == ["1.png"] and names(found["unreadable mask"]) == ["4.png"]
    assert found["mask of another size"].where[0].file == str(root / "ignore/0/1.png")
    chosen = [Row(f"0/{number}.png", "0", 0, "training") for number in (0, 1, 2)]
    write_manifest(root / "mine.csv", chosen)
    (root / "images/1/5.png").write_text("none")  # it is not among the chosen
    diagnosis = examine_data(root / "images", root / "masks", manifest=root / "mine.csv", model=tiny_model())
    assert diagnosis.findings == [] and diagnosis.facts["images"] == "3 with a mask, 3 of them good"
    assert diagnosis.facts["classes"] == "1 folder matched by index; 4 of the model's 5 classes have no folder"
    write_manifest(root / "more.csv", [*chosen, Row("0/9.png", "0", 0, "training")])
    assert names(examine(root, manifest=root / "more.csv")["missing image"]) == ["9.png"]


def test_lines_of_a_manifest_that_would_stop_a_run(root: Path) -> None:
    rows = [Row(f"{seed // 3}/{seed}.png", str(seed // 3), seed // 3, "training") for seed in range(6)]
    path = root / "mine.csv"

    def told(changed: list[Row]) -> list[str]:
        """What the doctor says of the manifest, and nothing else; a run stops exactly where it says something."""
        write_manifest(path, changed)
        diagnosis = examine_data(root / "images", root / "masks", manifest=path, model=tiny_model())
        where = [where for found in diagnosis.findings if found.kind == "bad manifest" for where in found.where]
        assert {where.file for where in where} <= {str(path)}
        assert {found.kind for found in diagnosis.findings if found.level == "fault"} <= {"bad manifest"}
        assert "same picture twice in a class" not in {found.kind for found in diagnosis.findings}
        try:
            gather(root / "images", None, tiny_model(), needs_labels=True, masks=root / "masks", manifest=path)
        except UserError as error:
            assert str(error) == f"{path} {where[0].detail}." and diagnosis.stops
        else:
            assert not diagnosis.stops
        return [where.detail for where in where]

    assert told(rows) == [] == told([rows[0]._replace(label=-1), *rows[1:]])
    (wrong,) = told([*rows[:5], rows[5]._replace(label=4)])
    assert wrong.startswith("gives 1/5.png the label 4, it is class 1 of the model")
    assert told([*rows, rows[2]]) == ["names 0/2.png twice: keep one of the lines"]
    (word,) = told([*rows[:3], rows[3]._replace(split="test"), *rows[4:]])
    assert word == "has 1/3.png for 'test': the split must be training or validation"
    assert told([row._replace(split="validation") for row in rows]) == ["has no samples for training"]
    assert len(told([rows[0]._replace(split=""), rows[0]._replace(label=3)])) == 3


def test_alpha_channels_are_looked_at_too(tmp_path: Path) -> None:
    for seed in range(3):
        save(tmp_path / f"0/{seed}.png", np.dstack([picture(seed), mask(seed)]))
    diagnosis = examine_data(tmp_path)
    assert [(finding.kind, finding.level) for finding in diagnosis.findings] == [("image: alpha channel", "note")]
    save(tmp_path / "0/3.png", picture(3))
    assert {finding.kind for finding in examine_data(tmp_path).findings} == {"missing mask", "image: alpha channel"}


def rectangle(height: int, width: int) -> np.ndarray:
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[5 : 5 + height, 5 : 5 + width] = 255
    return values


def test_masks_that_cover_too_much_or_too_little(root: Path) -> None:
    nearly = np.full((HEIGHT, WIDTH), 255, np.uint8)
    nearly[12:20, 12:22] = 0  # 80 of 1591: 94.97 % are covered
    write(root, "0/large", picture(20), nearly)
    nearly = nearly.copy()
    nearly[12, 12] = 255  # 95.03 %
    write(root, "0/larger", picture(21), nearly)
    write(root, "0/seven", picture(22), rectangle(1, 7))  # 0.44 %
    write(root, "0/eight", picture(23), rectangle(1, 8))  # 0.503 %
    write(root, "0/84", picture(24), rectangle(3, 28))
    write(root, "0/520", picture(25), rectangle(20, 26))
    found = examine(root)
    assert found["mask covers nearly the whole image"].where == [Where(str(root / "masks/0/larger.png"), "95.0%")]
    assert found["mask covers hardly anything"].where == [Where(str(root / "masks/0/seven.png"), "0.44%")]
    few = found["mask of fewer than 520 pixels"]
    assert names(few) == ["84.png", "eight.png", "seven.png"]
    assert [where.detail for where in few.where] == ["84 pixels", "8 pixels", "7 pixels"]
    assert {found[kind].level for kind in found} == {"warning"}
    one_less = rectangle(20, 26)
    one_less[5, 5] = 0
    write(root, "0/520", None, one_less)
    few = examine(root)["mask of fewer than 520 pixels"]
    assert few.where[0] == Where(str(root / "masks/0/520.png"), "519 pixels")


def test_inverted_masks(root: Path) -> None:
    # An object that touches a part of the border, and one that fills the centre, are as they should be.
    half = np.zeros((HEIGHT, WIDTH), np.uint8)
    half[:, :20] = 255
    write(root, "0/half", picture(30), half)
    write(root, "0/most", picture(31), np.pad(np.full((HEIGHT - 4, WIDTH), 255, np.uint8), ((0, 4), (0, 0))))
    assert not [kind for kind in examine(root) if "inverted" in kind]
    write(root, "0/0", None, 255 - mask(0))
    found = examine(root)["mask looks inverted"]
    assert found.level == "warning" and found.where == [
        Where(str(root / "masks/0/0.png"), "it covers 100% of the border")
    ]
    for seed in range(6):
        write(root, f"{seed // 3}/{seed}", None, 255 - mask(seed))
    found = examine(root)["most masks look inverted"]
    assert len(found.where) == 6 and "255 marks the object" in found.remedy
    assert "mask looks inverted" not in examine(root)


def test_soft_masks_and_numbers_of_classes(root: Path) -> None:
    ramp = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    write(root, "0/soft", picture(40), ramp)
    edges = mask(0).copy()
    edges[TOP, LEFT:RIGHT] = 128  # as resizing leaves it
    write(root, "0/edges", picture(41), edges)
    void = np.zeros((HEIGHT, WIDTH), np.uint8)
    void[6:30, 6:30] = 3  # a class, and its outline as 255
    void[6, 6:30] = 255
    write(root, "0/void", picture(42), void)
    found = examine(root)
    assert names(found["mask with many values between"]) == ["soft.png"]
    assert names(found["mask may hold numbers of classes"]) == ["void.png"]
    assert found["mask may hold numbers of classes"].where[0].detail == "96% of its values above 0 are 25 or less"


def test_masks_that_are_all_the_same(root: Path) -> None:
    for seed in range(6):
        write(root, f"{seed // 3}/{seed}", None, mask(0))
    found = examine(root)
    assert found["all masks are the same"].where[0].detail == "all 6 have the same pixels" and len(found) == 1
    write(root, "0/0", None, mask(1))
    assert examine(root) == {}


def test_masks_without_an_image(root: Path) -> None:
    write(root, "0/lost", None, mask())
    save(root / "masks/0/notes.jpg", mask())
    write(root, "emu/1", picture(50), mask())  # its image is there, if of no class
    write(root, "1/same", picture(51), mask())
    write(root, "1/same", picture(52), None, ending="bmp")  # two for one mask
    found = examine(root)
    assert names(found["mask without an image"]) == ["lost.png", "notes.jpg"]
    for path in (root / "masks").rglob("*.png"):  # beside their images, as NAME.png and NAME.bmp
        target = root / "images" / path.relative_to(root / "masks")
        if target.exists():
            Image.open(target).save(target.with_suffix(".bmp"))
        target.write_bytes(path.read_bytes())
    diagnosis = examine_data(root / "images", root / "images")
    assert "mask without an image" not in {finding.kind for finding in diagnosis.findings}


def test_small_pictures(root: Path) -> None:
    model = tiny_model(img_size=(74, 64))
    assert "image much smaller than the input" not in examine(root, model=model)  # 37 is half of 74
    model = tiny_model(img_size=(76, 64))
    found = examine(root, model=model)["image much smaller than the input"]
    assert len(found.where) == 6 and found.where[0].detail == "43 x 37, the model's input 64 x 76"
    model = tiny_model(img_size=(64, 88))
    assert len(examine(root, model=model)["image much smaller than the input"].where) == 6
    assert "image much smaller than the input" not in examine(root)


def test_the_same_picture_twice(root: Path) -> None:
    write(root, "0/copy", picture(1), mask(), ending="bmp")
    found = examine(root)
    assert set(found) == {"same picture twice in a class"}
    write(root, "1/copy", picture(0), mask())
    where = examine(root)["same picture in several classes"].where
    assert where == [Where(str(root / "images/0/0.png"), f"the same as {root / 'images/1/copy.png'}")]


def test_how_pictures_are_stored_is_a_note(root: Path) -> None:
    write(root, "0/grey", picture(60)[..., 0], mask())
    found = examine(root)
    assert set(found) == {"image: grey"} and found["image: grey"].level == "note"
    assert names(found["image: grey"]) == ["grey.png"]


def test_classes_of_few_samples_and_of_several_folders(root: Path) -> None:
    write(root, "2/a", picture(70), mask())
    write(root, "3/a", picture(71), 0 * mask())
    (root / "images/00").mkdir()
    save(root / "images/00/x.png", picture(72))
    save(root / "masks/00/x.png", mask())
    found = examine(root)
    few = found["class with fewer than 3 good samples"].where
    assert few == [Where("2", "1 good sample"), Where("3", "0 good samples")]
    assert found["several folders of one class"].where == [Where("0, 00", "class 0")]
    assert found["several folders of one class"].level == "note"


def test_classes_for_validation_need_no_three_samples(root: Path) -> None:
    write(root, "2/a", picture(70), mask())
    write(root, "3/a", picture(71), mask())
    write(root, "3/b", picture(72), mask())
    parts = {f"{seed // 3}/{seed}.png": "training" for seed in range(6)}
    parts |= {"2/a.png": "validation", "3/a.png": "training", "3/b.png": "validation"}
    write_manifest(root / "mine.csv", [Row(name, name[0], int(name[0]), part) for name, part in parts.items()])
    found = examine(root, manifest=root / "mine.csv", model=tiny_model())
    assert {kind: finding.where for kind, finding in found.items()} == {
        "class with fewer than 3 good samples": [Where("3", "1 good sample for training")]
    }


@pytest.mark.parametrize(
    ("folders", "class_map", "how"),
    [
        (["n01440764", "n01443537"], None, "wnid"),
        (["0", "0001"], None, "index"),
        (["tench", "shark"], None, "name"),
        (["a", "b"], {"a": 7, "b": 9}, "the class map"),
        (["7", "9"], "index", "index"),
    ],
)
def test_the_rule_by_which_classes_were_matched(
    folders: list[str], class_map: object, how: str, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for before, after in zip(["0", "1"], folders, strict=True):
        for kind in ("images", "masks"):
            (root / kind / before).rename(root / kind / f"x{after}")
            (root / kind / f"x{after}").rename(root / kind / after)
    model = tiny_model(num_classes=1000)
    model.pretrained_cfg = dict(model.pretrained_cfg)
    if how == "name":
        model.pretrained_cfg["label_names"] = ["shark", "tench", *map(str, range(998))]
    facts = examine_data(root / "images", root / "masks", model=model, class_map=class_map).facts  # type: ignore[arg-type]
    assert facts["classes"] == f"2 folders matched by {how}; 998 of the model's 1000 classes have no folder"


def test_classes_in_sorted_order(root: Path) -> None:
    model = tiny_model(num_classes=2)
    facts = examine_data(root / "images", root / "masks", model=model, class_map="sorted").facts
    assert facts["classes"] == "2 folders matched by sorted order; 0 of the model's 2 classes have no folder"


def test_everything_goes_into_json() -> None:
    where = [Where("a.png", "why"), Where("b.png")]
    diagnosis = Diagnosis({"images": "2"}, [Finding("warning", "odd", where, "look")])
    assert diagnosis.as_json() == {
        "stops": False,
        "facts": {"images": "2"},
        "findings": [
            {
                "level": "warning",
                "kind": "odd",
                "count": 2,
                "remedy": "look",
                "where": [{"file": "a.png", "detail": "why"}, {"file": "b.png", "detail": ""}],
            }
        ],
    }
