"""The public functions from Python: names, paths and objects do alike, results come back, and nothing is printed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import relevit
from relevit.errors import ArgumentError, UserError


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Five pictures of 53 x 59 pixels, in two class folders of the built-in model's."""
    rng = np.random.default_rng(3)
    for label, count in ((2, 3), (7, 2)):
        folder = tmp_path / "pictures" / str(label)
        folder.mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (53, 59, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def test_evaluate_takes_names_and_objects(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, view = relevit.load("builtin")
    dataset = [(np.asarray(Image.open(path)), int(path.parent.name)) for path in sorted(pictures.rglob("*.png"))]
    by_name = relevit.evaluate("builtin", str(pictures)).to_dict()[str(pictures)]["models"]["builtin"]
    for model, name in ((net, "model"), ((net, view), "model"), ({"mine": net}, "mine"), (["x=builtin"], "x")):
        for benchmark, called in ((pictures, str(pictures)), (dataset, "benchmark"), ({"set": dataset}, "set")):
            figures = relevit.evaluate(model, benchmark).to_dict()[called]["models"][name]
            assert figures["images"] == 5 and [figures[key] for key in ("r1", "r5")] == [by_name["r1"], by_name["r5"]]
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def test_explain_and_info_take_a_module(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, _ = relevit.load("builtin")
    explained = relevit.explain(net, pictures / "7", out=tmp_path / "maps", target=3)
    assert [row.target_name for row in explained] == ["3", "3"] and all(row.overlay.exists() for row in explained)
    assert relevit.info(net)["classes"] == relevit.info("builtin")["classes"] == "20"
    assert capsys.readouterr().out == ""


def test_what_is_wrong_is_told_in_the_words_of_python(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"^batch_size must be at least 1, not 0$"):
        relevit.evaluate("builtin", pictures, batch_size=0)
    with pytest.raises(ArgumentError, match=r"^protocol must be one of standard, paper, not model$"):
        relevit.info("builtin", protocol="model")
    with pytest.raises(ArgumentError, match=r"^method is now called explainer$"):
        relevit.explain("builtin", pictures, method="rollout")
    with pytest.raises(UserError, match="two models are called a"):
        relevit.evaluate(["a=builtin", "a=builtin"], pictures)
    with pytest.raises(TypeError, match="epoch"):
        relevit.finetune("builtin", pictures, tmp_path / "run", epoch=3)
