"""The run over files: layout, table, resuming, overrides, exclusions, faults, several processes."""

import csv
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import relevit.masking.make as automatic
import tiny_masks
from launching import finished, torchrun
from relevit.data.folder import class_folder_samples
from relevit.errors import UserError
from relevit.images import read_image, read_mask
from relevit.masking.run import mask_run
from relevit.masking.run.mask_run import make_masks
from relevit.training.loop import finetune
from tiny_masks import colour_features, contents, picture, tree
from tiny_run import tiny_model

SUPPORT = Path(__file__).parents[1] / "support"

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["relevit.masking.run.mask_run"])


@pytest.fixture(autouse=True)
def colours(monkeypatch):
    monkeypatch.setattr(automatic, "patch_features", colour_features)


@pytest.fixture
def images(tmp_path):
    return tree(tmp_path / "images")


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def make(model, images, out, **options):
    return make_masks(model, images, out, **{"min_pixels": 9, "batch_size": 2, **options})


def table(out: Path) -> dict[str, dict[str, str]]:
    with (out / "masks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    return {row["file"]: row for row in rows}


def masks_in(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*.png"))


def test_layout_table_and_masks(model, images, tmp_path):
    run = make(model, images, tmp_path / "masks")
    names = [f"{label}/{number}.png" for label in range(2) for number in range(3)]
    assert masks_in(tmp_path / "masks") == names == [row.name for row in run.rows]
    assert run.made == 6 and run.sheet.exists()
    for label in range(2):
        for number in range(3):
            left, top = 4 * number, 4 * label
            mask = read_mask(tmp_path / "masks" / str(label) / f"{number}.png")
            expected = np.zeros(mask.shape, np.float32)
            expected[top : top + 12, left : left + 12] = 1
            np.testing.assert_array_equal(mask, expected)
            row = table(tmp_path / "masks")[f"{label}/{number}.png"]
            assert row["outcome"] == "object" and row["pixels"] == "144"
            assert float(row["share"]) == pytest.approx(expected.mean(), abs=1e-4)
            assert 0 < float(row["confidence"]) <= 1
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == [
        ".relevit",
        "0",
        "1",
        "contact_sheet.html",
        "masks.csv",
    ]


def test_finetune_takes_the_folder_as_it_is(model, images, tmp_path):
    make(model, images, tmp_path / "masks")
    assert len(class_folder_samples(images, tmp_path / "masks", classes={"0": 0, "1": 1})[0]) == 6
    options = {"epochs": 1, "batch_size": 2, "track": (), "progress": False, "previews": 0}
    result = finetune(tiny_model(), images, tmp_path / "run", masks=tmp_path / "masks", **options)
    assert result.checkpoint is not None and result.checkpoint.exists()
    make(model, images, tmp_path / "masks", min_confidence=0.99)
    kept, _ = class_folder_samples(images, tmp_path / "masks", classes={"0": 0, "1": 1}, skip_bad=True)
    assert kept.names == ["1/1.png", "1/2.png"]


def test_the_same_bits_every_time_whatever_the_batch_of_files(model, images, tmp_path):
    make(model, images, tmp_path / "one")
    make(model, [str(images)], tmp_path / "one" / ".." / "two")
    shutil.copytree(tmp_path / "one", tmp_path / "three")
    assert make(model, images, tmp_path / "three").made == 0
    one = contents(tmp_path / "one")
    for other in ("two", "three"):  # the page's title is the folder's name
        found = contents(tmp_path / other)
        assert {name: found[name].replace(f"Masks in {other}".encode(), b"Masks in one") for name in found} == one


def test_several_folders_and_files(model, images, tmp_path):
    picture()[0].save(tmp_path / "loose.jpg", quality=95)
    run = make(model, [images / "0", images / "1", tmp_path / "loose.jpg"], tmp_path / "masks")
    assert [row.name for row in run.rows][-1] == "loose.jpg"
    assert masks_in(tmp_path / "masks") == [*[f"{c}/{n}.png" for c in range(2) for n in range(3)], "loose.png"]


def test_done_images_are_not_done_again(model, images, tmp_path, monkeypatch):
    out = tmp_path / "masks"
    make(model, images, out)
    done = []
    real = mask_run.finish
    monkeypatch.setattr(
        mask_run, "finish", lambda out, job, seen, **options: (done.append(job.name), real(out, job, seen, **options))
    )
    assert make(model, images, out).made == 0 and not done
    os.utime(images / "0" / "1.png", (1, 1))  # another date, the same content
    assert make(model, images, out).made == 0
    image, expected = picture(40, 28, (4, 12, 16, 24), seed=9)
    image.save(images / "0" / "1.png")
    picture(28, 36, (4, 4, 16, 20))[0].save(images / "1" / "new.png")
    assert make(model, images, out).made == 2
    assert sorted(done) == ["0/1.png", "1/new.png"]
    np.testing.assert_array_equal(read_mask(out / "0" / "1.png"), expected)
    # An image that is not given any more keeps its mask.
    assert len(make(model, images / "1" / "new.png", tmp_path / "other").rows) == 1
    (images / "0" / "0.png").unlink()
    assert "0/0.png" in [row.name for row in make(model, images, out).rows]


def test_thresholds_and_exclusions_need_no_new_masks(model, images, tmp_path):
    out = tmp_path / "masks"
    make(model, images, out)
    before = contents(out)
    run = make(model, images, out, min_confidence=0.99)  # those that touch the border have less
    assert run.made == 0
    low = [row.name for row in run.rows if row.outcome == "low confidence"]
    assert low == ["0/0.png", "0/1.png", "0/2.png", "1/0.png"] and masks_in(out) == ["1/1.png", "1/2.png"]
    assert all(0 < float(table(out)[name]["confidence"]) < 0.99 for name in low)

    run = make(model, images, out, min_pixels=145)
    assert {row.outcome for row in run.rows} == {"too small"} and masks_in(out) == []
    assert not (out / "0").exists()
    run = make(model, images, out, min_pixels=144)
    assert {row.outcome for row in run.rows} == {"object"}

    (tmp_path / "excluded.txt").write_text("0/2.png\r\n\n1/0.png\n")
    run = make(model, images, out, exclude=[tmp_path / "excluded.txt"])
    assert [row.name for row in run.rows if row.outcome == "excluded"] == ["0/2.png", "1/0.png"]
    assert masks_in(out) == ["0/0.png", "0/1.png", "1/1.png", "1/2.png"]
    make(model, images, out)
    assert contents(out) == before
    (tmp_path / "excluded.txt").write_text("0/2.jpg\n")
    with pytest.raises(UserError, match=r"0/2\.jpg.*no image here"):
        make(model, images, out, exclude=[tmp_path / "excluded.txt"])


def test_the_protocols_least_size_is_the_default(model, tmp_path):
    (tmp_path / "images").mkdir()
    for name, box in (("small", (0, 0, 13, 39)), ("enough", (0, 0, 13, 40))):  # 507 and 520 pixels
        picture(60, 60, box)[0].save(tmp_path / "images" / f"{name}.png")
    run = make_masks(model, tmp_path / "images", tmp_path / "masks")
    assert {row.name: (row.outcome, row.pixels) for row in run.rows} == {
        "small.png": ("too small", 507),
        "enough.png": ("object", 520),
    }


def test_an_override_wins(model, images, tmp_path):
    own = np.zeros((28, 40), np.uint8)
    own[5:19, 2:9] = 200
    (tmp_path / "own" / "0").mkdir(parents=True)
    Image.fromarray(own).save(tmp_path / "own" / "0" / "1.png")
    Image.fromarray(own).save(tmp_path / "own" / "0" / "absent.png")
    (tmp_path / "excluded.txt").write_text("0/1.png\n")
    options = {"override": tmp_path / "own", "min_confidence": 0.99, "exclude": [tmp_path / "excluded.txt"]}
    run = make(model, images, tmp_path / "masks", **options)
    assert masks_in(tmp_path / "masks") == ["0/1.png", "1/1.png", "1/2.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "masks" / "0" / "1.png")), own)
    row = table(tmp_path / "masks")["0/1.png"]
    assert (row["outcome"], row["confidence"], row["pixels"]) == ("override", "", str(14 * 7))
    assert any("absent" in note for note in run.notes)
    make(model, images, tmp_path / "masks")  # without it, the automatic mask is back
    assert table(tmp_path / "masks")["0/1.png"]["outcome"] == "object"


@pytest.mark.parametrize(
    ("shape", "value", "message"), [((40, 28), 255, "28 x 40, its image 40 x 28"), ((28, 40), 0, "no object")]
)
def test_an_override_is_checked_before_any_work(model, images, tmp_path, shape, value, message):
    (tmp_path / "own" / "0").mkdir(parents=True)
    Image.fromarray(np.full(shape, value, np.uint8)).save(tmp_path / "own" / "0" / "1.png")
    with pytest.raises(UserError, match=message):
        make(model, images, tmp_path / "masks", override=tmp_path / "own")
    assert not (tmp_path / "masks").exists()


def test_two_overrides_of_one_image_are_a_fault(model, images, tmp_path):
    mask = np.zeros((30, 26), np.uint8)
    for name in ("1.png", "1.bmp"):
        path = tmp_path / "own" / "0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    with pytest.raises(UserError, match="are for the same image"):
        make(model, images, tmp_path / "masks", override=tmp_path / "own")
    assert not (tmp_path / "masks").exists()


def test_unreadable_images_are_reported_and_skipped(model, images, tmp_path):
    (images / "0" / "3.jpg").write_bytes(b"no picture")
    picture(200, 120, (40, 40, 80, 80))[0].save(images / "1" / "cut.jpg", quality=95)
    whole = (images / "1" / "cut.jpg").read_bytes()
    (images / "1" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    run = make(model, images, tmp_path / "masks")
    faults = {row.name: row.fault for row in run.rows if row.outcome == "unreadable"}
    assert sorted(faults) == ["0/3.jpg", "1/cut.jpg"] and len(run.rows) == 8
    assert "not a picture" in faults["0/3.jpg"] and str(tmp_path) not in faults["1/cut.jpg"]
    assert make(model, images, tmp_path / "masks").made == 0
    (images / "1" / "cut.jpg").write_bytes(whole)  # mended
    assert make(model, images, tmp_path / "masks").made == 1
    assert table(tmp_path / "masks")["1/cut.jpg"]["outcome"] == "object"
    (images / "0" / "3.jpg").unlink()  # removed: nothing to report any more
    assert "0/3.jpg" not in [row.name for row in make(model, images, tmp_path / "masks").rows]


def test_a_turned_photograph_has_an_upright_mask(model, tmp_path):
    (tmp_path / "images" / "0").mkdir(parents=True)
    image, expected = picture(40, 28, (24, 4, 36, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "images" / "0" / "a b ä.jpg", quality=98, exif=exif)
    assert read_image(tmp_path / "images" / "0" / "a b ä.jpg").size == (40, 28)
    make(model, tmp_path / "images", tmp_path / "masks")
    np.testing.assert_array_equal(read_mask(tmp_path / "masks" / "0" / "a b ä.png"), expected)


def test_another_configuration_is_refused(model, images, tmp_path):
    make(model, images, tmp_path / "masks")
    before = contents(tmp_path / "masks")
    with pytest.raises(UserError, match=r"another configuration: kind: 'key' in the folder, 'value' now; refine: True"):
        make(model, images, tmp_path / "masks", kind="value", refine=False)
    with pytest.raises(UserError, match="weights"):
        make(tiny_model(seed=1), images, tmp_path / "masks")
    assert contents(tmp_path / "masks") == before


def test_nothing_of_the_users_is_overwritten(model, images, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        make(model, images, tmp_path / "full")
    with pytest.raises(UserError, match="of its own"):
        make(model, images, images / "masks")
    out = tmp_path / "masks"
    make(model, images, out)
    Image.fromarray(np.full((28, 40), 255, np.uint8)).save(out / "0" / "1.png")
    changed = contents(out)
    with pytest.raises(UserError, match=r"0/1\.png was changed by hand.*--override"):
        make(model, images, out, min_pixels=500)
    assert contents(out) == changed


def test_errors(model, images, tmp_path):
    with pytest.raises(UserError, match="no image or folder"):
        make(model, tmp_path / "nothing", tmp_path / "masks")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        make(model, tmp_path / "empty", tmp_path / "masks")
    with pytest.raises(UserError, match="min_confidence"):
        make(model, images, tmp_path / "masks", min_confidence=2.0)
    picture()[0].save(images / "0" / "0.jpg")
    with pytest.raises(UserError, match="the same mask"):
        make(model, images, tmp_path / "masks")
    assert not (tmp_path / "masks").exists()


def test_the_model_is_as_it_was(images, tmp_path):
    model = tiny_model().train()
    model.blocks[0].eval()
    model.cls_token.grad = model.cls_token.detach().clone()
    make(model, images, tmp_path / "masks")
    assert model.training and not model.blocks[0].training and model.blocks[1].training
    assert model.cls_token.grad is not None


def in_process(images: Path, out: Path, kill_at: int | None = None, **changed: object) -> int:
    process = SERVER.Process(target=tiny_masks.run, args=(str(images), str(out), kill_at), kwargs=changed)
    process.start()
    process.join(240)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def same(out: Path, whole: Path) -> None:
    one, other = contents(out), contents(whole)
    assert one.keys() == other.keys()
    for name in one:
        assert one[name] == other[name], name


@pytest.fixture
def whole(images, tmp_path):
    """A run that nobody disturbed, and its number of events."""
    out = tmp_path / "whole" / "masks"
    return out, tiny_masks.run(str(images), str(out))


@pytest.mark.parametrize("share", [0.02, 0.4, 0.75, 0.99])
@pytest.mark.quick_where(lambda share: share == 0.4)
def test_killed_once(share, images, whole, tmp_path):
    out, events = whole
    assert in_process(images, tmp_path / "masks", kill_at=round(share * (events - 1))) == -signal.SIGKILL
    assert in_process(images, tmp_path / "masks") == 0
    same(tmp_path / "masks", out)


@pytest.mark.slow
def test_killed_at_every_event(images, whole, tmp_path):
    out, events = whole
    for event in range(events):
        again = tmp_path / str(event) / "masks"
        assert in_process(images, again, kill_at=event) == -signal.SIGKILL
        assert in_process(images, again) == 0
        same(again, out)


def environment() -> dict[str, str]:
    paths = os.pathsep.join([str(SUPPORT), *sys.path])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


@pytest.mark.slow
def test_worker_processes_killed_from_outside(images, whole, tmp_path):
    """A separate program with two workers, killed while they work, leaves no process behind and ends with the same bits."""
    out = tmp_path / "masks"
    command = [sys.executable, str(SUPPORT / "tiny_masks.py"), str(images), str(out), "2"]
    for images_done in (1, 4):
        process = subprocess.Popen(command, env=environment(), start_new_session=True)
        while process.poll() is None and len(list(out.rglob("*.zip"))) < images_done:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 120  # a worker that was just starting looks for its parent after its imports
        while _alive(process.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _alive(process.pid)
        assert process.returncode == -signal.SIGKILL and not (out / "masks.csv").exists()
    assert subprocess.run(command, env=environment()).returncode == 0
    same(out, whole[0])


def _alive(group: int) -> bool:
    """Whether a process of the group is left that is no zombie."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


@pytest.mark.slow
def test_two_processes_do_as_one(images, whole, tmp_path):
    done = finished(torchrun(SUPPORT / "tiny_masks.py", images, tmp_path / "masks", 0))
    assert sorted(done.stdout.splitlines()) == [
        "left",
        "left",
        "made 6",
        "made 6",
        "share 2",
        "share 4",
    ]  # batches of two, two, one, one
    same(tmp_path / "masks", whole[0])
