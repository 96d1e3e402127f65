"""An audit goes on where it was stopped, and several processes share its pictures."""

import json
from pathlib import Path

import pytest

from audit_pictures import VIEW, ByBackground, ByEither, ByObject, pictures, write
from launching import launch
from relevit.auditing.folder import rows
from relevit.auditing.models import audit_models
from relevit.errors import UserError
from rows_on_disk import files, small_shards, stop_after


def test_a_stopped_audit_goes_on_to_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch, 30)
    models = {"one": (ByBackground(), VIEW), "two": (ByEither(), VIEW)}
    expected = audit_models(models, pictures(7), batch_size=3, out=tmp_path / "whole")
    in_memory = audit_models(models, pictures(7), batch_size=3)
    assert rows(in_memory) == rows(expected) and in_memory.to_dict() == expected.to_dict()
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            audit_models(models, pictures(7), batch_size=3, out=tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    assert len(before) == 3
    found = audit_models(models, pictures(7), batch_size=3, out=tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing is done again
    assert found.to_dict() == expected.to_dict() and rows(found) == rows(expected)
    assert (
        files(tmp_path / "out", "*.parquet") == files(tmp_path / "whole", "*.parquet")
        and len(files(tmp_path / "out", "*.parquet")) == 10
    )
    with pytest.raises(UserError, match="seed was 0, now 1"):
        audit_models(models, pictures(7), seed=1, out=tmp_path / "out")
    with pytest.raises(UserError, match="model two has other"):
        audit_models({"one": models["one"], "two": (ByObject(), VIEW)}, pictures(7), out=tmp_path / "out")


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    images, masks = write(tmp_path, 31)
    for name, processes in (("single", 1), ("double", 2)):
        out = tmp_path / name
        done = launch(
            "audit", "builtin", "--images", images, "--masks", masks, "--out", out, "--workers", 1, processes=processes
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("report: ") == 1
    single, double = tmp_path / "single", tmp_path / "double"
    # 31 pictures in 18 versions each, 64 in a part
    assert len(files(single, "*.parquet")) == 9 and files(double, "*.parquet") == files(single, "*.parquet")
    assert json.loads((double / "audit.json").read_text()) == json.loads((single / "audit.json").read_text())
    assert (double / "images.csv").read_bytes() == (single / "images.csv").read_bytes()
