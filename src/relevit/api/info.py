"""`relevit info`."""

from __future__ import annotations

from typing import Any, Literal

from relevit.terminal import model_arguments, stdout


def info(
    model: str,
    input_size: list[int] | None = None,
    num_classes: int | None = None,
    protocol: Literal["standard", "paper"] = "standard",
    model_args: dict[str, Any] | None = None,
) -> None:
    """Tell a model's token layout, readout, blocks and preprocessing, and whether relevit supports it; downloads nothing.

    Args:
        model: a timm model's name, a run or checkpoint folder, a file of weights, or builtin (the demo's).
        input_size: height and width of the images, where they differ from the model's own.
        num_classes: number of classes, where it differs from the model's own.
        protocol: preprocessing, the model's own or the paper's (mean and std 0.5, short side 256, centre crop 224).
        model_args: further arguments for timm.create_model, such as '{img_size: 384}'.
    """
    from rich.table import Table

    from relevit.models.loading import load
    from relevit.models.model_facts import model_facts

    net, _ = load(model, pretrained=False, **model_arguments(num_classes, model_args))
    size = (input_size[0], input_size[1]) if input_size else None
    table = Table(title=model, title_justify="left", show_header=False)
    for name, value in model_facts(net, input_size=size, protocol=protocol):
        table.add_row(name, value)
    stdout().print(table)
