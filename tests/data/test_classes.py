"""Class folders to class indices: by wnid, index, the model's names, a file; errors name the folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
from timm.data import ImageNetInfo
from torch import nn

from relevit.data.classes import class_index, match_classes
from relevit.errors import UserError


def model(num_classes: int, **cfg: Any) -> nn.Module:
    built = timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=3, num_classes=num_classes)
    built.pretrained_cfg.update(cfg)
    return built


def test_wnids_are_in_imagenet_order() -> None:
    found = class_index(["n15075141", "n01440764", "n01530575"], model(1000))
    assert found == {"n01440764": 0, "n01530575": 10, "n15075141": 999}


def test_wnids_follow_the_imagenet_of_the_models_size() -> None:
    wnid = ImageNetInfo("imagenet-12k").label_names()[4321]
    assert class_index([wnid], model(11821)) == {wnid: 4321}
    with pytest.raises(UserError, match=r"n01440764.*7 classes"):
        class_index(["n01440764"], model(7))
    with pytest.raises(UserError, match=r"n99999999.*imagenet-1k"):
        class_index(["n01440764", "n99999999"], model(1000))


def test_numbers_are_class_indices() -> None:
    assert class_index(["10", "0003", "0"], model(11)) == {"0": 0, "0003": 3, "10": 10}
    with pytest.raises(UserError, match=r"1 class folder has .*11: class 11 .*11 classes \(0 to 10\)"):
        class_index(["10", "11"], model(11))


def test_the_models_own_names_come_first() -> None:
    named = model(3, label_names=["cow", "1", "Käfer"])
    assert class_index(["1", "cow", "Ka\u0308fer"], named) == {"1": 1, "cow": 0, "Ka\u0308fer": 2}  # composed or not
    assert class_index(["cow"], model(3, label_names={2: "cow"})) == {"cow": 2}
    assert class_index(["1", "2"], named, "index") == {"1": 1, "2": 2}
    with pytest.raises(UserError, match="dog: it is none of the model's class names"):
        class_index(["cow", "dog"], named)


def test_sorted_folders_only_on_demand_and_complete() -> None:
    folders = ["dog", "cat", "emu"]
    with pytest.raises(UserError, match=r"3 class folders have no class.*cat.*dog.*emu.*class map"):
        class_index(folders, model(3))
    assert class_index(folders, model(3), "sorted") == {"cat": 0, "dog": 1, "emu": 2}
    with pytest.raises(UserError, match="each of the model's 5 classes, there are 3"):
        class_index(folders, model(5), "sorted")


def test_a_map_from_a_file_or_a_dictionary(tmp_path: Path) -> None:
    mapping = {"cow field": 4, "Käfer": 2}
    (tmp_path / "a.json").write_text(json.dumps(mapping))
    (tmp_path / "b.csv").write_text("folder,index\ncow field,4\nKäfer, 2\n", encoding="utf-8")
    (tmp_path / "c.csv").write_text("\ufeffcow field,4\n\nKäfer,2", encoding="utf-8")
    for source in (mapping, tmp_path / "a.json", str(tmp_path / "b.csv"), tmp_path / "c.csv"):
        assert class_index(["Käfer", "cow field"], model(5), source) == {"cow field": 4, "Käfer": 2}
    assert match_classes(["Käfer", "emu"], model(5), mapping).unknown == {"emu": "it is not in the class map"}
    with pytest.raises(UserError, match="class 4 is not among the model's 3 classes"):
        class_index(["cow field"], model(3), mapping)


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("a.json", "{", "not valid JSON"),
        ("a.json", "[1]", "a JSON object"),
        ("a.json", '{"cow": "x"}', "cow has the class 'x'"),
        ("a.json", '{"cow": 1.5}', "cow has the class 1.5"),
        ("a.json", '{"cow": true}', "cow has the class True"),
        ("a.csv", "cow,1\nemu,-2\n", "emu has the class '-2'"),
        ("a.csv", "cow,1,2\n", "3 columns"),
        ("a.csv", "cow,1\ncow,2\n", "cow twice"),
    ],
)
def test_a_bad_map_is_named(name: str, text: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=hint) as caught:
        class_index(["cow"], model(5), tmp_path / name)
    assert name in str(caught.value)


def test_a_missing_map_is_named() -> None:
    with pytest.raises(UserError, match=r"absent\.json cannot be read.*wnid, index, names, sorted"):
        class_index(["cow"], model(5), "absent.json")


def test_a_match_by_order_alone_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["ape", "bat", "cod"]
    for _ in range(2):
        class_index(folders, model(3), "sorted")
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("matched by order alone (ape is class 0, bat is class 1, cod is class 2)") == 1
    assert "and the model has no names for its classes: give a class map if that is wrong" in said
    class_index(folders, model(3, label_names=["ape", "cow", "bat"]), "sorted")
    assert "the model calls class 1 cow" in " ".join(capsys.readouterr().err.split())
    class_index(folders, model(3, label_names=folders), "sorted")
    class_index(["00", "01", "02"], model(3), "sorted")
    class_index(folders, None, "sorted")
    assert not capsys.readouterr().err
