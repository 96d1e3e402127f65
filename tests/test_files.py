"""Atomic writing: at every step of a writer that is killed there, a reader finds one whole version."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relevit import files
from relevit.errors import UserError
from relevit.files import atomic_folder, atomic_write, remove_leftovers

# Writes version after version, each in a forked child that dies, as by kill -9, at its n-th call to the system.
# After each death the reader must find two files of one and the same version, the old one or the new.
CRASH = """
import os, sys
from pathlib import Path
from relevit import files

kind, root = sys.argv[1], Path(sys.argv[2])

def write(version):
    if kind == "file":
        files.atomic_write(root / "kept", lambda file: [file.write(version.encode()) for _ in range(3)])
    else:
        with files.atomic_folder(root / "kept") as folder:
            (folder / "one").write_text(version * 3)
            (folder / "two").write_text(version * 3)

def read():
    if kind == "file":
        return {(root / "kept").read_text()}
    return {(root / "kept" / name).read_text() for name in ("one", "two")}

def die_at(step):
    count = 0
    def hook(event, arguments):
        nonlocal count
        if event.split(".")[0] in ("open", "os", "tempfile", "ctypes", "shutil"):
            count += 1
            if count == step:
                os._exit(9)
    sys.addaudithook(hook)

write("a")
deaths, seen = 0, set()
for step in range(1, 500):
    before, after = read(), {chr(ord("b") + step % 20) * 3}
    child = os.fork()
    if child == 0:
        die_at(step)
        write(chr(ord("b") + step % 20))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = read()
    assert found in (before, after), (step, before, found, after)
    seen.add(found == after)
    if status == 0:
        assert found == after and os.listdir(root) == ["kept"], os.listdir(root)
        break
    deaths += 1
else:
    raise SystemExit("never ended")
print(deaths, len(seen))
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_writer_killed_at_any_step_leaves_a_whole_version(kind: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CRASH, kind, tmp_path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    deaths, outcomes = map(int, done.stdout.split())
    assert deaths >= 4
    assert outcomes == 2  # some deaths came before the change, some after


def test_kill_9_during_continual_writing(tmp_path: Path) -> None:
    script = (
        "import sys; from relevit.files import atomic_folder\n"
        "for n in range(10**9):\n"
        " with atomic_folder(sys.argv[1] + '/kept') as f:\n"
        "  (f / 'one').write_text(str(n) * 20000); (f / 'two').write_text(str(n) * 20000)\n"
    )
    for wait in (0.05, 0.11, 0.17):
        writer = subprocess.Popen([sys.executable, "-c", script, tmp_path])
        while not (tmp_path / "kept").exists():
            time.sleep(0.01)
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        one, two = ((tmp_path / "kept" / name).read_text() for name in ("one", "two"))
        assert one == two and one == one[: len(one) // 20000] * 20000
    remove_leftovers(tmp_path / "kept")
    assert os.listdir(tmp_path) == ["kept"]


def test_atomic_write_takes_bytes_text_and_callbacks(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "ä b.txt"
    for content in (b"bytes", "täxt", lambda file: file.write(b"called")):
        atomic_write(path, content)
    assert path.read_bytes() == b"called"
    atomic_write(path, "täxt")
    assert path.read_text(encoding="utf-8") == "täxt"
    assert os.listdir(path.parent) == ["ä b.txt"]


def test_files_and_folders_get_the_rights_of_new_ones(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "one", "text")
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_a_failing_callback_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    atomic_write(tmp_path / "kept", "old")

    def fail(file: object) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        atomic_write(tmp_path / "kept", fail)
    assert (tmp_path / "kept").read_text() == "old" and os.listdir(tmp_path) == ["kept"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for names in (["one", "gone"], ["one", "deep/two"]):
        with atomic_folder(tmp_path / "kept") as folder:
            for name in names:
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(name)
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert found == ["kept/deep/two", "kept/one"]
    with pytest.raises(KeyError), atomic_folder(tmp_path / "kept") as folder:
        (folder / "one").write_text("half")
        raise KeyError("mine")
    assert (tmp_path / "kept/one").read_text() == "one" and os.listdir(tmp_path) == ["kept"]


def test_without_an_exchange_files_are_replaced_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_exchange", lambda new, place: False)
    for version in ("old", "new"):
        with atomic_folder(tmp_path / "kept") as folder:
            (folder / "one").write_text(version)
    assert (tmp_path / "kept/one").read_text() == "new" and os.listdir(tmp_path) == ["kept"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_leaves_the_old(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with atomic_folder(tmp_path / "kept") as folder:
        (folder / "one").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"disk is full.*kept"), atomic_folder(tmp_path / "kept") as folder:
        (folder / "one").write_text("new")
    with pytest.raises(UserError, match=r"disk is full.*one"):
        atomic_write(tmp_path / "kept" / "one", "new")
    assert (tmp_path / "kept/one").read_text() == "old"
    assert os.listdir(tmp_path) == ["kept"] and os.listdir(tmp_path / "kept") == ["one"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/inner could not be written"):
        atomic_write(tmp_path / "file" / "inner", "text")
