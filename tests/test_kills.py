"""Each command, killed before any of its operations on files: the same call goes on, and ends with the same files.

A command runs once undisturbed; what is on the disk before every operation is kept. From each of these states, which are
what kill -9 leaves, the same call is made again. The quick part takes some states of some commands.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import relevit.masking.make as automatic
from file_operations import contents, restore, states, watched
from relevit.cli import main
from relevit.demonstration.text import LEAD
from relevit.errors import UserError
from small_builtin import make_small, make_still
from tiny_masks import colour_features, tree
from tiny_run import TinySamples, arguments, tiny_model

TIMES = re.compile(rb'("(?:seconds|began)": )[-+.\de]+')
REMOVALS = ("os.remove", "os.rmdir")  # they work on a full disk
Run = Callable[[], object]


def inputs(folder: Path) -> Path:
    """folder/images and folder/masks in two classes of two pictures each, and folder/scenes."""
    rng = np.random.default_rng(0)
    for label in range(2):
        for number in range(2):
            mask = np.zeros((28, 28), np.uint8)
            mask[4 + label : 20, 6 + number : 21] = 255
            picture = rng.integers(0, 255, (28, 28, 3)).astype(np.uint8)
            for kind, values in (("images", picture), ("masks", mask), ("scenes", picture[::-1])):
                path = folder / kind / str(label) / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.ascontiguousarray(values)).save(path)
    return folder


def command(*words: object) -> Run:
    return lambda: main([str(word) for word in words])


def finetune(out: Path, **changed: Any) -> Run:
    from relevit.training.loop import finetune

    usual = {"epochs": 1, "checkpoint_seconds": 0.0, "previews": 1, **changed}
    return lambda: finetune(tiny_model(), TinySamples(6), out, **arguments(**usual))


def masks(images: Path, out: Path) -> Run:
    from relevit.masking.run.mask_run import make_masks

    return lambda: make_masks(tiny_model(), tree(images, 1, 2) if not images.exists() else images, out, min_pixels=9)


def run_of(name: str, data: Path, out: Path) -> Run:
    """A small run of a command into `out`."""
    classes = ["--images", data / "images", "--masks", data / "masks"]
    runs: dict[str, Callable[[], Run]] = {
        "finetune": lambda: finetune(out),
        "finetune --lr auto": lambda: finetune(out, lr="auto", rates=[1e-4, 1e-3]),
        "masks": lambda: masks(data / "to mask", out),
        "convert": lambda: command(
            *("convert", "png", data / "masks", "--images", data / "images", "--workers", 1, "--out", out)
        ),
        "compose": lambda: command(
            "compose",
            *classes,
            "--backgrounds",
            data / "scenes",
            "--limit",
            2,
            "--size",
            32,
            "--workers",
            1,
            "--out",
            out,
        ),
        "split": lambda: command("split", *classes, "--classes", 1, "--per-class", 1, "--out", out / "split.csv"),
        "explain": lambda: command("explain", "builtin", data / "images", "--raw", "--out", out),
        "evaluate": lambda: command("evaluate", "builtin", "--data", data / "images", "--out", out),
        "measure": lambda: command(
            "measure",
            "localization",
            "builtin",
            "--data",
            data / "images",
            "--masks",
            data / "masks",
            "--out",
            out / "m.json",
        ),
        "effects": lambda: command("effects", "a=builtin", "b=builtin", "--data", data / "images", "--out", out),
        "audit": lambda: command("audit", "builtin", *classes, "--out", out),
        "probe": lambda: command("probe", "builtin", "--images", data / "images", "--out", out),
        "interpolate": lambda: command(
            *("interpolate", "builtin", "builtin", "--data", data / "images", "--shifted", data / "scenes"),
            *("--alphas", 0, 1, "--out", out),
        ),
        "reproduce": lambda: command("reproduce", "small", "--out", out),
        "demo": lambda: command("demo", "--out", out),
    }
    return runs[name]()


COMMANDS = (
    "finetune, finetune --lr auto, masks, convert, compose, split, explain, evaluate, measure, effects, audit, probe, interpolate, "
    "reproduce, demo"
).split(", ")


def compared(root: Path) -> dict[str, bytes]:
    """What the same call must write again: all files, without times."""
    files = {}
    for name, content in contents(root).items():
        if "tensorboard" in name:
            continue
        if name.endswith("steps.csv"):  # the last column
            content = b"\n".join(line.rpartition(b",")[0] for line in content.splitlines())
        files[name] = TIMES.sub(rb"\1", content)
    return files


def check_kills(name: str, tmp_path: Path, every: int = 1) -> str:
    """Kill a command at every `every`-th state; a line of the table."""
    data, root = inputs(tmp_path / "data"), tmp_path / "work"
    root.mkdir()
    run = run_of(name, data, root / "out")
    operations, left = states(root, tmp_path / "states", run)
    expected, went_on, finished = compared(root), 0, 0
    for state in left[::every]:
        restore(state, root)
        try:
            run()
            went_on += 1
        except (SystemExit, UserError):  # all was done: nothing is overwritten
            finished += 1
        assert compared(root) == expected, (name, state.name)
    return f"{name:20} {operations:10} {len(left[::every]):10} {went_on:10} {finished:10}"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automatic, "patch_features", colour_features)
    make_small(monkeypatch, ("control", LEAD))
    make_still(monkeypatch)


@pytest.mark.parametrize(
    ("name", "every"), [("convert", 2), ("compose", 25), ("split", 1), ("masks", 3), ("finetune", 15), ("explain", 9)]
)
@pytest.mark.quick_where(lambda name: name in ("convert", "split"))
def test_some_kills(name: str, every: int, tmp_path: Path) -> None:
    check_kills(name, tmp_path, every)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_kill_of_every_command(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = check_kills(name, tmp_path)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{'command':20} {'operations':>10} {'states':>10} {'went on':>10} {'finished':>10}\n{line}\n"
        )


@pytest.mark.slow
def test_a_killed_process_leaves_such_a_state(tmp_path: Path) -> None:
    """What the states are taken for: a process that ends at the 9th operation, and the same call after it."""
    data, root = inputs(tmp_path / "data"), tmp_path / "work"
    root.mkdir()
    run = run_of("convert", data, root / "out")
    script = (
        "import os, sys; from pathlib import Path; from file_operations import watched; from test_kills import run_of\n"
        "count = []\n"
        "def die(event, path):\n"
        " count.append(event)\n"
        " if len(count) == 9: os._exit(9)\n"
        "data, root = map(Path, sys.argv[1:])\n"
        "with watched(root, die): run_of('convert', data, root / 'out')()\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ended = subprocess.run([sys.executable, "-c", script, data, root], env={**os.environ, "PYTHONPATH": paths})
    assert ended.returncode == 9 and (root / "out" / ".relevit" / "lock").exists()
    run()
    after = compared(root)
    shutil.rmtree(root / "out")
    run()
    assert after == compared(root)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *((name, errno.ENOSPC) for name in ("convert", "compose", "masks", "finetune")),
        ("convert", errno.EROFS),
        ("convert", errno.EACCES),
    ],
)
@pytest.mark.quick_where(lambda name: name == "convert")
def test_errors_of_the_disk_at_any_write(
    name: str, number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From some operation on nothing can be written: one sentence, and the same call works when it can be again."""
    data, root = inputs(tmp_path / "data"), tmp_path / "work"
    root.mkdir()
    run = run_of(name, data, root / "out")
    operations: list[str] = []
    with watched(root, lambda event, path: operations.append(event)):
        run()
    expected = compared(root)
    said = "disk is full" if number == errno.ENOSPC else "could not be written"
    places = [number for number, event in enumerate(operations) if event not in REMOVALS]
    for first in (places[0], places[len(places) // 2], places[-1]):
        shutil.rmtree(root / "out", ignore_errors=True)
        count = 0

        def refuse(event: str, path: str, first: int = first) -> None:
            nonlocal count
            count += 1
            if count > first and event not in REMOVALS:
                raise OSError(number, os.strerror(number), path)

        capsys.readouterr()
        with watched(root, refuse), pytest.raises((SystemExit, UserError)) as error:
            run()
        assert said in str(error.value) + capsys.readouterr().err, (name, first)
        with suppress(SystemExit, UserError) if first == places[-1] else nullcontext():  # all was written
            run()
        assert compared(root) == expected, (name, first)


@pytest.mark.parametrize("name", ["convert", "compose", "masks", "finetune"])
def test_a_folder_that_is_deleted_on_the_way(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, root = inputs(tmp_path / "data"), tmp_path / "work"
    root.mkdir()
    run, count = run_of(name, data, root / "out"), 0

    def delete(event: str, path: str) -> None:
        nonlocal count
        count += 1
        if count == 20:
            shutil.rmtree(root / "out")

    with watched(root, delete), pytest.raises((SystemExit, UserError)) as error:
        run()
    assert re.search("was removed|could not be written", str(error.value) + capsys.readouterr().err)
    run()  # the same call begins anew
    assert (root / "out").is_dir()
