"""The public names: what README.md promises, imported on first use."""

import inspect
import subprocess
import sys

import pytest

import relevit


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_and_help_need_no_torch() -> None:
    heavy = ["torch", "timm", "numpy", "PIL", "rich", "matplotlib", "pyarrow", "accelerate"]
    told = "relevit.cli.overview(); [relevit.cli.build_parser(name).format_help() for name in relevit.cli.COMMANDS]"
    assert (
        run(f"import relevit, relevit.cli, sys; {told}; print([name for name in {heavy} if name in sys.modules])")
        == "[]\n"
    )


@pytest.mark.parametrize("name", relevit.__all__)
def test_every_public_name_is_there(name: str) -> None:
    thing = getattr(relevit, name)
    assert inspect.getdoc(thing) and name in dir(relevit)


def test_every_public_name_is_declared_for_type_checkers() -> None:
    source = inspect.getsource(relevit)
    typed = source.split("if TYPE_CHECKING:")[1].split("__version__")[0]
    assert set(typed.replace(",", " ").split()) >= set(relevit.__all__)


def test_no_module_has_the_name_of_a_public_function() -> None:
    for name in relevit.__all__:
        with pytest.raises(ModuleNotFoundError):
            __import__(f"relevit.{name}")


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="relevanz"):
        _ = relevit.relevanz


def test_order_of_arguments() -> None:
    first = {
        relevit.load: ["name"],
        relevit.relevance: ["model", "images", "target", "explainer", "upscale", "normalize"],
        relevit.forward_with_relevance: ["model", "images", "target"],
        relevit.relevance_loss: ["maps", "masks"],
        relevit.finetune: ["model", "samples", "out"],
        relevit.evaluate: ["model", "benchmark"],
        relevit.tokencut: ["features", "grid", "tau", "eps", "solver"],
    }
    for function, names in first.items():
        assert list(inspect.signature(function).parameters)[: len(names)] == names
