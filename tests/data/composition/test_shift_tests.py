"""Shift tests: what is planned and drawn, pictures against masks and an independent composition, folders and faults."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from composed_tree import CLASSES, build, save
from relevit.data.composition.composed_sets import (
    CONFIG,
    MANIFEST,
    Prepared,
    check_apart,
    check_place,
    missing,
    picture_paths,
    prepare,
    read_manifest,
    write_compositions,
)
from relevit.data.composition.shift_tests import SETS, SI_SCORE, chosen_sets, render, stream
from relevit.data.folder import class_folder_samples
from relevit.errors import FaultsError, UserError

SIZE = 41
SMALL = {"positions": (0.25, 0.75), "areas": (0.02, 0.3), "angles": (0.0, 90.0, 33.0), "area": 0.1}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return build(tmp_path)


def cut_outs(data: Path, **options: object) -> Prepared:
    settings = {"sets": SI_SCORE, "size": SIZE, **SMALL, **options}
    return prepare(data / "cutouts", data / "scenes", **settings)  # type: ignore[arg-type]


def whole(data: Path, **options: object) -> Prepared:
    settings = {"size": SIZE, **SMALL, **options}
    return prepare(data / "images", masks=data / "masks", **settings)  # type: ignore[arg-type]


def write(out: Path, prepared: Prepared, **options: object) -> int:
    return write_compositions(out, prepared, **options)  # type: ignore[arg-type]


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_counts_and_values_of_the_grids(data: Path) -> None:
    prepared = cut_outs(data, repeats=2)
    assert prepared.counts == {"location": 8 * 4 * 2, "size": 8 * 2 * 2, "rotation": 8 * 3 * 2}
    one = [c for c in prepared.compositions if c.object == "bee/1.png" and c.repeat == 1]
    assert [(c.x, c.y) for c in one if c.set == "location"] == [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)]
    assert [c.area for c in one if c.set == "size"] == [0.02, 0.3]
    assert [c.angle for c in one if c.set == "rotation"] == [0, 90, 33]
    assert {c.area for c in one if c.set != "size"} == {0.1} and {c.class_name for c in one} == {"bee"}
    for name in SI_SCORE:  # an object has the same backgrounds at every value, different ones in its repeats
        both = {
            r: {c.background for c in prepared.compositions if (c.set, c.object, c.repeat) == (name, "bee/1.png", r)}
            for r in (1, 2)
        }
        assert len(both[1]) == len(both[2]) == 1 and both[1] != both[2]
    assert all(c.background_class == c.background.split("/")[0] for c in prepared.compositions)
    assert len({(c.set, c.file) for c in prepared.compositions}) == len(prepared.compositions)


def test_every_background_is_drawn_and_never_more_than_there_are(data: Path) -> None:
    prepared = cut_outs(data, repeats=99, sets=["size"])
    assert prepared.counts == {"size": 8 * 2 * 5}
    assert len({c.background for c in prepared.compositions}) == 5


def test_pictures_are_where_the_manifest_says(data: Path) -> None:
    prepared = cut_outs(data, sets=["all"])
    for one in prepared.compositions:
        picture, mask = render(one, prepared.sources)
        assert picture.shape == (SIZE, SIZE, 3) and mask.shape == (SIZE, SIZE)
        grey = 40 * int(Path(one.background).stem) if one.background else 0
        expected = mask[..., None] * np.array([255, 0, 0]) + (1 - mask[..., None]) * grey
        assert np.abs(picture - expected).max() <= 0.6  # red over grey, by the mask alone: no green, no halo
        assert mask.mean() == pytest.approx(one.area, rel=0.08)
        rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
        assert (mask * columns).sum() / mask.sum() / SIZE == pytest.approx(one.x, abs=0.6 / SIZE)
        assert (mask * rows).sum() / mask.sum() / SIZE == pytest.approx(one.y, abs=0.6 / SIZE)


def test_whole_pictures_go_onto_scenes_too(data: Path) -> None:
    prepared = prepare(data / "images", data / "scenes", data / "masks", sets=["size"], size=SIZE, **SMALL)
    assert prepared.counts == {"size": 16}
    _, mask = render(prepared.compositions[0], prepared.sources)
    assert mask.mean() == pytest.approx(0.02, rel=0.1)


def test_sets_of_the_backgrounds_challenge(data: Path) -> None:
    prepared = whole(data, repeats=2)
    assert prepared.counts == {
        "original": 8,
        "only_fg": 8,
        "only_bg": 8,
        "mixed_same": 3 * 2 + 4 * 2,
        "mixed_rand": 16,
        "mixed_next": 3 * 2 + 4 + 2,
    }
    assert prepared.remarks == ["mixed_same leaves out classes of a single picture: cow"]
    following = {"ant": "bee", "bee": "cow", "cow": "ant"}
    for one in prepared.compositions:
        picture, mask = render(one, prepared.sources)
        assert min(mask.shape) == SIZE  # the whole frame, its short side
        stored = np.asarray(Image.open(data / "images" / one.object))
        assert mask.shape[1] / mask.shape[0] == pytest.approx(stored.shape[1] / stored.shape[0], abs=0.02)
        if one.set == "only_bg":
            assert mask.max() == 0
            assert (picture == stored[0, 0]).all()  # nothing of the object, plain background
            continue
        assert 0.5 < mask.max() <= 1
        corner = np.array([0, 0, 0])
        if one.background:
            assert one.background_class == one.background.split("/")[0]
            corner = np.asarray(Image.open(data / "images" / one.background))[0, 0]
        assert (picture[mask == 0] == corner).all()
        assert (picture[mask == 1] >= 175).all()
        if one.set in ("mixed_same", "mixed_rand"):
            assert one.background != one.object
        if one.set in ("original", "mixed_same"):
            assert one.background_class == one.class_name
        if one.set == "mixed_next":
            assert one.background_class == following[one.class_name]


def test_random_classes_are_uniform_and_include_the_own(data: Path) -> None:
    prepared = whole(data, sets=["mixed_rand"], repeats=300)
    drawn = [c.background_class for c in prepared.compositions if c.class_name == "ant"]
    shares = [drawn.count(name) / len(drawn) for name in CLASSES]  # by class, not by picture: cow has a single one
    assert shares == pytest.approx([1 / 3] * 3, abs=0.06)


def test_draws_depend_on_the_seed_the_set_and_the_object_alone(data: Path) -> None:
    full, again, other = (cut_outs(data, seed=seed).compositions for seed in (3, 3, 4))
    assert full == again and [c.background for c in full] != [c.background for c in other]
    alone = cut_outs(data, seed=3, sets=["rotation"], angles=(90.0, 5.0)).compositions
    known = {c.file: c for c in full if c.set == "rotation"}
    assert all(known[c.file] == c for c in alone if c.angle == 90)
    more = cut_outs(data, seed=3, repeats=3).compositions
    assert set(full) <= set(more)
    for path in (data / "cutouts" / "ant").iterdir():
        path.unlink()
    (data / "cutouts" / "ant").rmdir()
    assert cut_outs(data, seed=3).compositions == [c for c in full if c.class_name != "ant"]
    assert stream(0, "a", "bc").random() != stream(0, "ab", "c").random()


def test_a_limit_draws_a_part(data: Path) -> None:
    full = cut_outs(data, repeats=2).compositions
    seven, nine = (cut_outs(data, repeats=2, limit=limit) for limit in (7, 9))
    assert seven.counts == {"location": 7, "size": 7, "rotation": 7}
    assert set(seven.compositions) < set(nine.compositions) < set(full)
    assert [c for c in full if c in set(nine.compositions)] == nine.compositions  # in order
    assert cut_outs(data, repeats=2, limit=7, seed=1).compositions != seven.compositions
    mixed = whole(data, limit=3, sets=["original", "mixed_rand", "mixed_next", "only_bg"]).compositions
    objects = [
        {c.object for c in mixed if c.set == name} for name in ("original", "mixed_rand", "mixed_next", "only_bg")
    ]
    assert objects[0] == objects[1] == objects[2] == objects[3] and len(objects[0]) == 3


def test_a_written_folder_is_complete_and_reproduces_itself(data: Path) -> None:
    prepared = whole(data)
    assert write(data / "out", prepared, workers=3) == len(prepared.compositions)
    rows = read_manifest(data / "out" / MANIFEST)
    assert rows == prepared.compositions
    for row in rows:
        picture, mask = render(row, prepared.sources)
        stored, stored_mask = (np.asarray(Image.open(path)) for path in picture_paths(data / "out", row))
        np.testing.assert_array_equal(stored, picture)
        np.testing.assert_array_equal(stored_mask, np.round(mask * 255))
    assert write(data / "again", whole(data), workers=0) == len(rows)
    assert contents(data / "again") == contents(data / "out")
    for name in ("original", "only_fg", "mixed_same", "mixed_next"):  # ready for `relevit finetune`
        samples, _ = class_folder_samples(
            data / "out" / name / "images", data / "out" / name / "masks", classes={"ant": 0, "bee": 1, "cow": 2}
        )
        assert len(samples) == prepared.counts[name]


def test_a_killed_run_goes_on(data: Path) -> None:
    prepared = cut_outs(data)
    write(data / "out", prepared)
    before = contents(data / "out")
    gone, half = (
        picture_paths(data / "out", prepared.compositions[5]),
        picture_paths(data / "out", prepared.compositions[8]),
    )
    for path in (*gone, half[0], data / "out" / MANIFEST):
        path.unlink()
    leftover = half[0].parent / f".{half[0].name}.tmp-killed"
    leftover.write_bytes(b"half a pict")
    (data / "out" / ".relevit").mkdir()
    (data / "out" / ".relevit" / "lock").write_text("")  # as a killed process leaves it
    untouched = picture_paths(data / "out", prepared.compositions[0])[0].stat().st_mtime_ns
    assert [c.file for c in missing(data / "out", prepared.compositions)] == [
        prepared.compositions[i].file for i in (5, 8)
    ]
    assert write(data / "out", cut_outs(data)) == 2
    assert contents(data / "out") == before and not leftover.exists()
    assert picture_paths(data / "out", prepared.compositions[0])[0].stat().st_mtime_ns == untouched
    assert write(data / "out", cut_outs(data)) == 0


def test_an_error_leaves_whole_pictures_and_no_manifest(data: Path) -> None:
    prepared = cut_outs(data)
    count = 0

    def stop(made: int) -> None:
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(data / "out", prepared, advance=stop)
    assert not (data / "out" / MANIFEST).exists() and (data / "out" / CONFIG).exists()
    for path in (data / "out").rglob("*.png"):
        Image.open(path).load()
    assert write(data / "out", prepared) == len(prepared.compositions) - 6


def test_folders_of_others_are_left_alone(data: Path) -> None:
    prepared = cut_outs(data)
    with pytest.raises(UserError, match="not empty"):
        write(data / "scenes", prepared)
    with pytest.raises(UserError, match="is a file"):
        check_place(data / "scenes" / "sky" / "0.png")
    write(data / "out", prepared)
    before = contents(data / "out")
    with pytest.raises(UserError, match=r"seed: 0 in the folder, 1 now; .*limit: None in the folder, 5 now"):
        write(data / "out", cut_outs(data, seed=1, limit=5))
    save(data / "scenes" / "new.png", np.zeros((7, 7, 3), np.uint8))
    with pytest.raises(UserError, match=r"backgrounds: .*'count': 5.*'count': 6"):
        write(data / "out", cut_outs(data))
    assert contents(data / "out") == before
    (data / "scenes" / "new.png").unlink()
    (data / "moved").mkdir()
    for name in ("cutouts", "scenes"):
        (data / name).rename(data / "moved" / name)
    assert write(data / "out", cut_outs(data / "moved")) == 0  # the place of the sources does not matter
    (data / "out" / CONFIG).write_text("{")
    with pytest.raises(UserError, match=r"compose\.json cannot be read"):
        check_place(data / "out")


def test_other_contents_of_the_same_names_and_sizes_are_refused(data: Path) -> None:
    def options(masks: str = "masks") -> Prepared:
        sets = ["location", "mixed_next"]
        return prepare(data / "images", data / "scenes", data / masks, sets=sets, size=SIZE, **SMALL)

    write(data / "out", options())
    shutil.copytree(data / "masks", data / "others")
    assert write(data / "out", options("others")) == 0  # the same masks elsewhere
    one, two = data / "images" / "ant" / "1.png", data / "scenes" / "sea" / "3.png"
    for kind, path in (("masks", data / "others" / "bee" / "2.png"), ("images", one), ("backgrounds", two)):
        old = path.read_bytes()
        path.write_bytes(old[:-1] + bytes([old[-1] ^ 1]))  # in the last checksum, which readers pass over
        with pytest.raises(UserError) as error:
            write(data / "out", options("others"))
        assert f"configuration: {kind}: {{'count': " in str(error.value) and str(error.value).count(" now") == 1
        path.write_bytes(old)
    assert write(data / "out", options("others")) == 0


def test_sets_are_not_written_into_a_folder_that_is_read(data: Path) -> None:
    (data / "link").symlink_to(data / "images")
    for out in ("images", "images/new", "link/new/deep"):
        with pytest.raises(UserError, match=r"lies in the folder of images .*images: choose an --out of its own"):
            check_apart(data / out, images=data / "images", masks=None)
    with pytest.raises(UserError, match="folder of masks"):
        check_apart(data / "masks", images=data / "images", masks=data / "masks")
    check_apart(data, images=data / "images")
    check_apart(data / "images2", images=data / "images")
    for inside, kind in (("cutouts", "images"), ("scenes", "backgrounds")):
        with pytest.raises(UserError, match=f"lies in the folder of {kind}"):
            write(data / inside / "new", cut_outs(data))
        assert not (data / inside / "new").exists()


def test_jpeg(data: Path) -> None:
    prepared = whole(data, suffix=".jpg", sets=["mixed_next"])
    write(data / "out", prepared)
    picture, mask = picture_paths(data / "out", prepared.compositions[0])
    assert picture.suffix == ".jpg" and mask.suffix == ".png"
    assert picture.read_bytes()[:2] == b"\xff\xd8" and mask.read_bytes()[1:4] == b"PNG"


def test_all_faults_at_once_or_left_out(data: Path) -> None:
    (data / "cutouts" / "ant" / "0.png").write_bytes(b"no picture")
    save(data / "cutouts" / "bee" / "1.png", np.full((9, 9, 4), 255, np.uint8))  # opaque
    save(data / "cutouts" / "bee" / "2.png", np.zeros((9, 9, 4), np.uint8))  # nothing
    (data / "scenes" / "sky" / "0.png").write_bytes(b"no picture")
    with pytest.raises(FaultsError) as raised:
        cut_outs(data)
    kinds = sorted((fault.kind, Path(fault.file).name) for fault in raised.value.faults)
    assert kinds == [
        ("empty mask", "2.png"),
        ("missing mask", "1.png"),
        ("unreadable image", "0.png"),
        ("unreadable image", "0.png"),
    ]
    prepared = cut_outs(data, skip_bad=True)
    assert prepared.counts["size"] == 5 * 2 and len(prepared.faults) == 4
    assert not any("sky/0" in c.background for c in prepared.compositions)
    assert write(data / "out", prepared) == len(prepared.compositions)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"size": 7}, "size must be"),
        ({"repeats": 0}, "repeats must be"),
        ({"limit": 0}, "limit must be"),
        ({"seed": -1}, "seed must be"),
        ({"suffix": ".gif"}, "gif"),
        ({"positions": (0.5, 1.5)}, "positions are shares"),
        ({"areas": (0.0, 0.5)}, "areas are shares"),
        ({"areas": (0.5, 0.5)}, "areas must be one or several different"),
        ({"angles": ()}, "angles must be one or several"),
        ({"angles": (float("nan"),)}, "angles must be degrees"),
        ({"area": 2.0}, "areas are shares"),
        ({"sets": ["mixed_rand"]}, "mixed_rand needs whole pictures.*--masks"),
        ({"sets": ["locations"]}, "unknown set 'locations'"),
    ],
)
def test_wrong_arguments(data: Path, options: dict[str, object], part: str) -> None:
    with pytest.raises(UserError, match=part):
        cut_outs(data, **options)


def test_sets_that_cannot_be_made(data: Path) -> None:
    assert chosen_sets(["all"], cut_outs=False, with_backgrounds=True) == list(SETS)
    assert chosen_sets(["all"], cut_outs=True, with_backgrounds=False) == ["only_fg"]
    assert chosen_sets(["size", "location", "size"], cut_outs=True, with_backgrounds=True) == ["location", "size"]
    with pytest.raises(UserError, match="--backgrounds"):
        whole(data, sets=["original", "size"])
    for name in ("ant", "bee"):
        for path in (data / "images" / name).glob("[1-9].png"):
            path.unlink()
    with pytest.raises(UserError, match="no mixed_same can be made: it needs two pictures of a class"):
        whole(data, sets=["mixed_same"])
    with pytest.raises(UserError, match="not a folder"):
        prepare(data / "nowhere", masks=data / "masks")
    (data / "empty").mkdir()
    with pytest.raises(FaultsError, match="no images"):
        prepare(data / "cutouts", data / "empty")


def test_the_default_sets_of_single_pictures(data: Path) -> None:
    """Asked for all, what cannot be made is left out with a remark."""
    for name in ("ant", "bee"):
        for path in (data / "images" / name).glob("[1-9].png"):
            path.unlink()
    prepared = whole(data)
    assert prepared.counts == {"original": 3, "only_fg": 3, "only_bg": 3, "mixed_rand": 3, "mixed_next": 3}
    assert prepared.remarks == ["no mixed_same can be made: it needs two pictures of a class"]


def test_names_that_would_collide(data: Path) -> None:
    (data / "cutouts" / "ant" / "0.webp").write_bytes((data / "cutouts" / "ant" / "0.png").read_bytes())
    with pytest.raises(UserError, match=r"ant/0\.png and ant/0\.webp would give"):
        cut_outs(data)


def test_odd_names_and_deeper_folders(data: Path) -> None:
    odd = data / "cutouts" / "ant" / "größer, als" / "a.b c.png"
    odd.parent.mkdir()
    (data / "cutouts" / "ant" / "0.png").rename(odd)
    prepared = cut_outs(data, sets=["size"])
    write(data / "out", prepared)
    assert read_manifest(data / "out" / MANIFEST) == prepared.compositions
    assert (data / "out" / "size" / "images" / "ant" / "größer, als" / "a.b c_area0.02_b1.png").exists()
