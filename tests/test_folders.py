"""The owner of a folder: what is refused, what goes on, and that two commands never write to one folder."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from relevit.errors import UserError
from relevit.files import atomic_write
from relevit.folders import HIDDEN, OwnedFolder, check_new_file

SETTINGS = {"seed": 3, "sizes": (1, 2), "about": {"torch": "1"}}
HOLD = """
import sys, time
from relevit.folders import OwnedFolder
sys.argv = ["/bin/relevit", "masks", "--out", "x"]
with OwnedFolder({path!r}, "relevit masks", {{"seed": 3}}) as folder:
    (folder.path / ".x.png.tmp-aa").write_text("half")
    (folder.path / "deep").mkdir(exist_ok=True)
    (folder.path / "deep" / ".y.tmp-bb").mkdir(exist_ok=True)
    print("held", flush=True)
    time.sleep(60)
"""


def begun(path: Path, settings: dict = SETTINGS, **options: object) -> OwnedFolder:
    folder = OwnedFolder(path, "relevit test", settings, **options)
    with folder:
        atomic_write(path / "rows.csv", "1")
    return folder


def test_opening_reads_only_and_the_same_settings_go_on(tmp_path: Path) -> None:
    folder = OwnedFolder(tmp_path / "out", "relevit test", SETTINGS)
    assert not (tmp_path / "out").exists() and folder.earlier is None and not folder.goes_on
    begun(tmp_path / "out")
    again = OwnedFolder(tmp_path / "out", "relevit test", {**SETTINGS, "about": {"torch": "2"}})
    assert again.goes_on and again.earlier == {"seed": 3, "sizes": [1, 2], "about": {"torch": "1"}}
    before = (tmp_path / "out" / HIDDEN / "settings.json").read_bytes()
    with again:
        pass
    assert (tmp_path / "out" / HIDDEN / "settings.json").read_bytes() == before
    assert sorted(os.listdir(tmp_path / "out" / HIDDEN)) == ["settings.json"]


def test_other_settings_are_refused_with_the_differences(tmp_path: Path) -> None:
    begun(tmp_path / "out")
    with pytest.raises(UserError) as error:
        OwnedFolder(tmp_path / "out", "relevit test", {**SETTINGS, "seed": 4, "new": 1})
    assert "another configuration: seed: 3 in the folder, 4 now; new: None in the folder, 1 now." in str(error.value)


def test_files_and_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    begun(tmp_path / "other")
    with pytest.raises(UserError, match=r"not empty .*relevit test.*nothing is overwritten"):
        OwnedFolder(tmp_path, "relevit test", SETTINGS)
    for name in ("notes.txt", "link"):
        with pytest.raises(UserError, match=f"{name} is a file"):
            OwnedFolder(tmp_path / name, "relevit test", SETTINGS)
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        OwnedFolder(tmp_path / "broken", "relevit test", SETTINGS, record="config.json")
    with pytest.raises(UserError, match="was written by relevit test"):
        OwnedFolder(tmp_path / "other", "relevit masks", SETTINGS)
    (tmp_path / "broken" / "config.json").write_text('{"architecture": "vit"}')
    with pytest.raises(UserError, match="not begun by relevit test"):
        OwnedFolder(tmp_path / "broken", "relevit test", SETTINGS, record="config.json")


def test_named_files_may_be_there_a_finished_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "trials").mkdir()
    begun(tmp_path / "out", may_hold=("trials",))
    (tmp_path / "out" / HIDDEN / "lock").write_text("")  # of a process that was killed at its end
    (tmp_path / "out" / "result.json").write_text("")
    with pytest.raises(UserError, match=r"result\.json is there already"):
        OwnedFolder(tmp_path / "out", "relevit test", SETTINGS, result="result.json")
    assert os.listdir(tmp_path / "out" / HIDDEN) == ["settings.json"]


def test_a_record_can_be_forgotten(tmp_path: Path) -> None:
    with OwnedFolder(tmp_path / "out", "relevit test", SETTINGS) as folder:
        atomic_write(folder.path / "page.html", "")
        folder.forget()
    assert os.listdir(tmp_path / "out") == ["page.html"]


def test_two_in_one_process_cannot_hold_one_folder(tmp_path: Path) -> None:
    one, other = (OwnedFolder(tmp_path, "relevit test", {}) for _ in range(2))
    with one, pytest.raises(UserError, match=f"in use by another relevit command .*process {os.getpid()} on "), other:
        pass
    with other:
        pass


def test_the_second_call_is_told_who_holds_it_until_he_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(path=str(tmp_path))], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        folder = OwnedFolder(tmp_path, "relevit masks", {"seed": 3})
        with pytest.raises(UserError, match=rf"\(relevit masks, process {holder.pid} on ") as error, folder:
            pass
        assert str(tmp_path) in str(error.value)
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with folder:  # what was half written is gone
        assert not [path for path in tmp_path.rglob("*") if ".tmp-" in path.name]


def test_a_folder_deleted_on_the_way_is_told_and_not_made_anew(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError, match="out was removed"), OwnedFolder(out, "relevit test", {}):
        shutil.rmtree(out)
    with pytest.raises(UserError, match="out was removed"), OwnedFolder(out, "relevit test", {}):
        shutil.rmtree(out)
        atomic_write(out / "deep" / "file", "text")
    assert not out.exists()
    with pytest.raises(UserError, match="out was removed"), OwnedFolder(out, "relevit test", {}):
        out.rename(tmp_path / "elsewhere")
        (out / HIDDEN).mkdir(parents=True)
        (out / HIDDEN / "lock").write_text("")
    shutil.rmtree(out)
    with pytest.raises(UserError, match="out was removed"), OwnedFolder(out, "relevit test", {}):
        shutil.rmtree(out)
        open(out / "log.csv", "a")
    begun(out)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_errors_of_the_disk_end_in_one_sentence(number: int, tmp_path: Path) -> None:
    said = "disk is full: .*out could" if number == errno.ENOSPC else "out could not be written"
    with pytest.raises(UserError, match=said), OwnedFolder(tmp_path / "out", "relevit test", {}):
        raise OSError(number, os.strerror(number))
    with pytest.raises(UserError, match=said), OwnedFolder(tmp_path / "out", "relevit test", {}):
        raise OSError(number, os.strerror(number), str(tmp_path / "out" / "log.csv"))
    with pytest.raises(OSError, match="input"), OwnedFolder(tmp_path / "out", "relevit test", {}):
        raise OSError(number, os.strerror(number), str(tmp_path / "input"))


@pytest.mark.parametrize("name", ["mkdir", "open", "fsync", "replace"])
def test_a_folder_that_cannot_be_begun_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"could not be written \(Read-only"):
        patch.setattr(os, name, refuse)
        begun(tmp_path / "out")
    begun(tmp_path / "out")


def test_of_several_processes_the_first_holds_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    folder = OwnedFolder(tmp_path / "out", "relevit test", SETTINGS)
    with folder:
        assert not folder.path.exists()
    monkeypatch.setenv("RANK", "0")
    with folder:
        monkeypatch.setenv("RANK", "1")
        with OwnedFolder(tmp_path / "out", "relevit test", SETTINGS):
            atomic_write(tmp_path / "out" / "rows", "1")
        monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="was removed"), folder:
        shutil.rmtree(folder.path)


def test_a_new_file_must_not_exist(tmp_path: Path) -> None:
    check_new_file(tmp_path / "new.csv")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place in (tmp_path, tmp_path / "link"):
        with pytest.raises(UserError, match="is there already"):
            check_new_file(place)
