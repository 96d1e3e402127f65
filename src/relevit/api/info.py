"""`relevit info`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from relevit import terminal
from relevit.api import types
from relevit.api.types import public


@public
def info(
    model: types.Model,
    *,
    input_size: Annotated[tuple[int, int] | None, types.Shown(metavar=("H", "W"))] = None,
    num_classes: types.Count | None = None,
    protocol: types.Protocol = "standard",
    model_args: types.Options = None,
    cost: bool = False,
) -> dict[str, str]:
    """Tell a model's token layout, readout, blocks and preprocessing, and whether relevit supports it; downloads nothing.

    Args:
        input_size: height and width of the images, where they differ from the model's own.
        cost: also measures a training step on one image, its time and the memory above the model's own.

    Returns:
        The facts by name, in words.
    """
    from relevit.models.loading import load
    from relevit.models.model_facts import model_facts

    net, _ = load(model, num_classes=num_classes, model_args=model_args, pretrained=False)
    size = (input_size[0], input_size[1]) if input_size else None
    facts = dict(model_facts(net, input_size=size, protocol=protocol))
    if cost and facts["supported"] == "yes":
        from relevit.explainers.cost import step_cost
        from relevit.models.loading import data_config

        seconds, memory = step_cost(net, *(size or data_config(net)["input_size"][1:]))
        facts["a step on one image"] = f"{seconds:.2g} s, {memory / 2**20:.0f} MiB above the model"
    return facts


def show(facts: dict[str, str], given: Mapping[str, Any]) -> None:
    """The facts as a table."""
    from relevit.report.table import Table

    terminal.show(Table(str(given["model"]), ("", ""), list(facts.items()), left=(0, 1)))
