"""Every recipe is built through the command line's parser, and fits a model and a method."""

import re
from pathlib import Path

import pytest
import timm
import torch
import yaml

from relevit.cli import build_parser
from relevit.training.methods import METHODS, numbers_of

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
REST = ["--images", "pictures", "--out", "run"]


def test_there_are_recipes_for_the_papers_models() -> None:
    names = {path.stem for path in RECIPES}
    assert names >= {"vit_base", "vit_large", "augreg_small", "augreg_base", "augreg_large", "deit_small", "deit_base"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe(path: Path) -> None:
    options = build_parser("finetune").parse_args(["--config", str(path), *REST])
    for key, value in yaml.safe_load(path.read_text()).items():
        assert options[key] == value, key
    with torch.device("meta"):
        timm.create_model(options.model, pretrained=False)
    assert options.method in METHODS


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_opens_with_command_time_and_result(path: Path) -> None:
    comment = path.read_text().split("\nmodel:")[0]
    assert f"relevit finetune --config {path.relative_to(ROOT).as_posix()} " in comment
    assert "# Running time:" in comment and "# Expected result:" in comment


def test_options_override_a_recipe() -> None:
    given = ["--config", str(ROOT / "recipes" / "vit_base.yaml"), *REST, "--lr", "7e-5", "--no-progress"]
    options = build_parser("finetune").parse_args(given)
    assert options.lr == 7e-5 and options.progress is False and options.epochs == 50


def test_rates_and_temperatures_of_the_paper() -> None:
    protocol = {
        "vit_base": (3e-6, 1.0),
        "vit_large": (9e-7, 1.0),
        "augreg_small": (2e-6, 1.0),
        "augreg_base": (6e-7, 1.0),
        "augreg_large": (9e-7, 1.0),
        "deit_small": (1e-6, 0.55),
        "deit_base": (8e-7, 0.65),
    }
    for name, (rate, temperature) in protocol.items():
        text = (ROOT / "recipes" / f"{name}.yaml").read_text()
        assert float(re.search(r"^lr: (\S+)", text, re.M)[1]) == rate  # type: ignore[index]
        assert float(re.search(r"^temperature: (\S+)", text, re.M)[1]) == temperature  # type: ignore[index]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_with_every_recipe(path: Path, method: str) -> None:
    """By --method alone: the recipe's numbers are taken where the method has them."""
    given = yaml.safe_load(path.read_text())
    numbers = numbers_of(method, given)
    assert numbers.keys() == METHODS[method].options.keys()
    assert all(numbers[key] == value for key, value in given.items() if key in numbers)


def test_a_recipe_with_another_method_and_the_automatic_rate() -> None:
    given = ["--config", str(ROOT / "recipes" / "deit_base.yaml"), *REST, "--method", "gradmask", "--lr", "auto"]
    options = build_parser("finetune").parse_args([*given, "--rates", "[5e-7, 1e-6]", "--trainable", "lora:4"])
    assert (options.method, options.lr, options.rates) == ("gradmask", "auto", [5e-7, 1e-6])
    assert options.trainable == "lora:4" and options.temperature == 0.65
