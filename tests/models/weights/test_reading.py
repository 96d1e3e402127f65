"""Files and folders of weights: what is given is found, what is damaged or missing is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from checkpoint_forms import build, in_shards, safetensors_file
from relevit.errors import UserError
from relevit.models.weights.reading import read


def test_files_without_weights_are_named(tmp_path: Path) -> None:
    (tmp_path / "b.pth").write_bytes(b"nothing")
    (tmp_path / "c.pth").touch()
    torch.save({"a": torch.ones(1000)}, tmp_path / "whole.pth")
    (tmp_path / "d.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:1500])
    (tmp_path / "e.safetensors").write_bytes(b"nothing")
    torch.save([torch.ones(2)], tmp_path / "f.pth")
    for name in ("b.pth", "c.pth", "d.pth", "e.safetensors", "f.pth", "absent.pth"):
        with pytest.raises(UserError, match=name.replace(".", r"\.")):
            read(tmp_path / name)


def test_safetensors_are_known_by_their_beginning(tmp_path: Path) -> None:
    path = safetensors_file(tmp_path, build())
    path.rename(tmp_path / "w.bin")
    assert set(read(tmp_path / "w.bin").content) == set(build().state_dict())


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = in_shards(tmp_path, build())
    shard = sorted(index.parent.glob("*.safetensors"))[1]
    shard.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"names {shard.name}, which is not beside it"):
        read(index.parent)
    table = json.loads(index.read_text())
    table["weight_map"]["more"] = sorted(index.parent.glob("*.safetensors"))[0].name
    (tmp_path / "elsewhere").rename(shard)
    index.write_text(json.dumps(table))
    with pytest.raises(UserError, match="lacks more"):
        read(index)


def test_several_models_of_a_folder_are_sets(tmp_path: Path) -> None:
    for number in (0, 1, 10, 2):
        safetensors_file(tmp_path, build(number)).rename(
            tmp_path / f"model{f'_{number}' if number else ''}.safetensors"
        )
    assert list(read(tmp_path).content) == ["model", "model_1", "model_2", "model_10"]


def test_folders_without_weights_tell_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no file of weights in it"):
        read(tmp_path)
    for step in ("checkpoint-500", "checkpoint-1000"):
        (tmp_path / step).mkdir()
        safetensors_file(tmp_path, build()).rename(tmp_path / step / "model.safetensors")
    with pytest.raises(UserError, match=r"give one of its checkpoints, such as .*checkpoint-1000"):
        read(tmp_path)
    for name in ("a.pth", "b.pth"):
        torch.save({"a": torch.ones(2)}, tmp_path / name)
    with pytest.raises(UserError, match=r"several files that may be the weights \(a\.pth, b\.pth\)"):
        read(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__0_0.distcp").touch()
    with pytest.raises(UserError, match="dcp_to_torch"):
        read(tmp_path / "parts")
