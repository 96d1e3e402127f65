"""The command line: every subcommand is a typed function below; it parses, calls, prints. torch is imported on use only."""

from __future__ import annotations

import inspect
import re
import sys
from argparse import Action
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter

from relevit import __version__
from relevit.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

MORE = "`relevit COMMAND --help` lists the options of a command"
ABOUT = "Fine-tune vision transformers so that their relevance maps lie on the object, and measure what that does."


def demo(full: bool = False, out: str | None = None, seed: int = 0) -> None:
    """Fine-tune and measure a small ViT on the built-in benchmark, offline; ends with a table and a report.

    Running it again does not overwrite an earlier result.

    Args:
        full: runs the whole grid of methods, seeds and numbers of samples (up to two hours on two cores).
        out: the folder for the results; by default runs/demo, or runs/demo-full.
        seed: of the samples that are drawn and of the training.
    """
    from relevit.quickstart.run import demo as run_demo

    run_demo(out=out, full=full, seed=seed)


def explain(
    model: str,
    images: list[str],
    out: str = "runs/explain",
    target: str | None = None,
    method: str = "gae",
    raw: bool = False,
    checkpoint: str | None = None,
    num_classes: int | None = None,
    normalization: Literal["model", "paper"] = "model",
    model_args: dict[str, Any] | None = None,
    batch_size: int = 8,
    device: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write relevance maps as pictures: what the model sees, and beside it where it looks.

    Args:
        model: a timm model's name, a run or checkpoint folder, a file of weights, or builtin (the demo's).
        images: image files and folders; of a folder the tree is kept.
        out: the folder for the pictures.
        target: the class whose map is wanted, by index or name (such as a wnid); by default each image's predicted class.
        method: the explainer.
        raw: writes the relevance of each patch, not scaled, as a .npy file beside each picture, too.
        checkpoint: a file or folder of weights for the timm model MODEL, in place of its pretrained ones.
        num_classes: number of classes, where it differs from the model's own.
        normalization: preprocessing, the model's own or the paper's (mean and std 0.5, short side 256, centre crop 224).
        model_args: further arguments for timm.create_model, such as '{img_size: 384}'.
        batch_size: images in one forward pass.
        device: where to run, such as cuda; by default the GPU if there is one.
        overwrite: replaces pictures that are there already.
    """
    from rich.progress import Progress
    from rich.table import Table

    from relevit.models import load
    from relevit.report.model_facts import class_name, class_number
    from relevit.report.overlays import overlay_jobs, write_overlays

    jobs = overlay_jobs(images, out)
    net, view = load(
        model,
        checkpoint=checkpoint,
        num_classes=num_classes,
        normalization=normalization,
        device=_device(device),
        **(model_args or {}),
    )
    wanted = None if target is None else class_number(net, target)
    table = Table(title=f"What {model} says", title_justify="left")
    for column in ("image", "predicted class", "probability", *([] if target is None else ["map of"]), "picture"):
        table.add_column(column, overflow="fold", justify="right" if column == "probability" else "left")
    faults = []
    with Progress(transient=True, console=_stderr(), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("explaining", total=len(jobs))
        for one in write_overlays(
            net,
            view,
            jobs,
            target=wanted,
            method=method,
            raw=raw,
            overwrite=overwrite,
            batch_size=batch_size,
            advance=lambda count: bar.advance(task, count),
        ):
            if one.fault is not None:
                faults.append(one.fault)
                continue
            shown = [] if target is None else [class_name(net, one.target)]
            table.add_row(
                str(one.source), class_name(net, one.predicted), f"{one.probability:.1%}", *shown, str(one.overlay)
            )
    if len(faults) < len(jobs):
        _stdout().print(table)
    if faults:
        raise UserError(f"{len(faults)} of {len(jobs)} images could not be read: " + "; ".join(faults))


def finetune(
    model: str,
    images: str,
    out: str,
    masks: str | None = None,
    validation: str | None = None,
    validation_masks: str | None = None,
    method: str = "relevance",
    target: Literal["label", "predicted"] = "label",
    class_map: str | None = None,
    skip_bad: bool = False,
    epochs: int = 50,
    batch_size: int = 8,
    lr: float = 3e-6,
    weight_decay: float = 1e-4,
    lr_decay: float = 0.85,
    lr_decay_epochs: int = 2,
    max_steps: int | None = None,
    temperature: float = 1.0,
    lambda_bg: float = 2.0,
    lambda_fg: float = 0.3,
    lambda_relevance: float | None = None,
    lambda_classification: float | None = None,
    options: dict[str, float] | None = None,
    second_order: bool = False,
    accumulation: int = 1,
    mixed_precision: Literal["no", "bf16", "fp16"] = "no",
    resize: float = 256 / 224,
    flip: float = 0.5,
    normalization: Literal["model", "paper"] = "model",
    checkpoint: str | None = None,
    num_classes: int | None = None,
    model_args: dict[str, Any] | None = None,
    seed: int = 0,
    validation_every: int = 1,
    validation_batch_size: int | None = None,
    previews: int = 4,
    workers: int = 0,
    tensorboard: bool = True,
    progress: bool = True,
    checkpoint_seconds: float = 30.0,
) -> None:
    """Fine-tune a ViT by its relevance maps (or another method) on your own images and masks.

    Images lie in class folders, DIR/<class>/<name>.jpg; masks under the same relative names as PNG, 255 on the object. Everything is
    checked before training starts. Stopped at any moment, the same command goes on where it was.

    Args:
        model: a timm model's name, a run or checkpoint folder, a file of weights, or builtin (the demo's).
        images: the folder of class folders with images.
        out: the folder of the run.
        masks: the folder of masks; by default the alpha channel of the images.
        validation: a folder of class folders for choosing the best epoch; by default classes held out of the images.
        validation_masks: the folder of masks of the validation images; by default their alpha channel.
        method: what is minimised; relevance is the paper's.
        target: the class whose map is used, the label or (label-free) the predicted class.
        class_map: a JSON or CSV file from folder name to class index, where folders are named neither by wnid nor by class index.
        skip_bad: goes on without the images and masks that are found to be faulty.
        epochs: passes over the samples.
        batch_size: samples in a step, of each process.
        lr: learning rate of AdamW.
        weight_decay: weight decay of AdamW.
        lr_decay: the factor on the learning rate every lr_decay_epochs epochs.
        lr_decay_epochs: epochs between two decays of the learning rate.
        max_steps: stops after so many optimiser steps.
        temperature: divides the logits in the classification term.
        lambda_bg: weight of the background term (Eq. 3).
        lambda_fg: weight of the foreground term (Eq. 3).
        lambda_relevance: weight of the relevance terms (Eq. 5); by default the method's own.
        lambda_classification: weight of the classification term (Eq. 5); by default the method's own.
        options: further numbers of the method, such as '{swap_probability: 0.5}'.
        second_order: lets gradients pass through the attention's gradients, too; slower.
        accumulation: batches whose gradients make one step.
        mixed_precision: number format of the forward pass.
        resize: size of the training view before the random crop, as a factor on the model's input size.
        flip: probability of a horizontal flip.
        normalization: preprocessing, the model's own or the paper's (mean and std 0.5, short side 256, centre crop 224).
        checkpoint: a file or folder of weights for the timm model MODEL, in place of its pretrained ones.
        num_classes: number of classes; another one than the model's gives a new, untrained head.
        model_args: further arguments for timm.create_model, such as '{img_size: 384}'.
        seed: of the order of samples, their views and the split.
        validation_every: epochs between two validations.
        validation_batch_size: samples in a batch of validation; by default batch_size.
        previews: number of validation samples whose maps are drawn before and after.
        workers: processes that read images; 0 reads in this one.
        tensorboard: writes the metrics for TensorBoard, too.
        progress: shows a progress display.
        checkpoint_seconds: seconds between two savings of the state.
    """
    arguments = dict(locals())
    from relevit.models import load
    from relevit.training import finetune as train

    own = {name: arguments.pop(name) for name in ("checkpoint", "num_classes", "model_args")}
    source: Any = arguments.pop("model")
    if any(value is not None for value in own.values()):
        source = load(
            source,
            checkpoint=own["checkpoint"],
            num_classes=own["num_classes"],
            normalization=normalization,
            **(own["model_args"] or {}),
        )[0]
    result = train(source, arguments.pop("images"), arguments.pop("out"), **arguments)
    console = _stdout()
    for name, value in result.metrics.items():
        console.print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}", highlight=False)
    console.print(f"best checkpoint: {result.checkpoint}", highlight=False, soft_wrap=True)


def evaluate(
    models: list[str],
    data: list[str],
    out: str | None = None,
    class_map: str | None = None,
    normalization: Literal["model", "paper"] = "model",
    batch_size: int = 64,
    workers: int = 0,
    device: str | None = None,
    progress: bool = True,
) -> None:
    """Measure R@1 and R@5 of one or several models on folders of class folders, side by side.

    Each model sees the images through its own preprocessing. Images that cannot be read are counted and named.

    Args:
        models: one or several models, each a timm model's name, a run or checkpoint folder, a file of weights, or builtin (the demo's).
        data: one or several folders of class folders with images, DIR/<class>/<image>.
        out: a JSON file for the figures, with those of every class.
        class_map: a JSON or CSV file from folder name to class index, where folders are named neither by wnid nor by class index.
        normalization: preprocessing, each model's own or the paper's (mean and std 0.5, short side 256, centre crop 224).
        batch_size: images in one forward pass.
        workers: processes that read images; 0 reads in this one.
        device: where to run, such as cuda; by default the GPU if there is one.
        progress: shows a progress bar.
    """
    from relevit.evaluation import evaluate as measure
    from relevit.models import load

    if out is not None and Path(out).exists():
        raise UserError(f"{out} is there already: give another --out, or remove it")
    home = _device(device)
    report = measure(
        {name: load(name, normalization=normalization, device=home) for name in models},
        {name: name for name in data},
        class_map=class_map,
        batch_size=batch_size,
        workers=workers,
        progress=progress and sys.stderr.isatty(),
    )
    _stdout().print(report.table())
    for benchmark, left_out in report.unreadable.items():
        if left_out:
            _stderr().print(
                f"{len(left_out)} images of {benchmark} could not be read and do not count:", highlight=False
            )
            for _, reason in left_out:
                _stderr().print(f"  {reason}", highlight=False, soft_wrap=True)
    if out is not None:
        report.save(out)
        _stdout().print(f"figures of every class: {out}", highlight=False, soft_wrap=True)


def info(
    model: str,
    input_size: list[int] | None = None,
    num_classes: int | None = None,
    normalization: Literal["model", "paper"] = "model",
    model_args: dict[str, Any] | None = None,
) -> None:
    """Tell a model's token layout, readout, blocks and preprocessing, and whether relevit supports it; downloads nothing.

    Args:
        model: a timm model's name, a run or checkpoint folder, a file of weights, or builtin (the demo's).
        input_size: height and width of the images, where they differ from the model's own.
        num_classes: number of classes, where it differs from the model's own.
        normalization: preprocessing, the model's own or the paper's (mean and std 0.5, short side 256, centre crop 224).
        model_args: further arguments for timm.create_model, such as '{img_size: 384}'.
    """
    from rich.table import Table

    from relevit.models import load
    from relevit.report.model_facts import model_facts

    net, _ = load(model, pretrained=False, num_classes=num_classes, **(model_args or {}))
    size = (input_size[0], input_size[1]) if input_size else None
    table = Table(title=model, title_justify="left", show_header=False)
    for name, value in model_facts(net, input_size=size, normalization=normalization):
        table.add_row(name, value)
    _stdout().print(table)


COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "explain": explain,
    "finetune": finetune,
    "evaluate": evaluate,
    "info": info,
}
POSITIONAL = {
    "explain": {"model": "MODEL", "images": "IMAGE"},
    "evaluate": {"models": "MODEL"},
    "info": {"model": "MODEL"},
}
USAGE = {
    "demo": "[options]",
    "explain": "MODEL IMAGE... [options]",
    "finetune": "--model MODEL --images DIR --out RUN [--masks DIR] [options]",
    "evaluate": "MODEL... --data DIR... [options]",
    "info": "MODEL [options]",
}
METAVARS = {
    "model": "MODEL",
    "images": "DIR",
    "out": "PATH",
    "masks": "DIR",
    "validation": "DIR",
    "validation_masks": "DIR",
    "data": "DIR",
    "class_map": "FILE",
    "checkpoint": "PATH",
    "method": "NAME",
    "input_size": ("H", "W"),
    "options": "{...}",
    "model_args": "{...}",
    "target": "CLASS",
    "device": "NAME",
}


class _Formatter(DefaultHelpFormatter):
    """The help is what the docstrings say and the default."""

    def _get_help_string(self, action: Action) -> str:
        return action.help or ""


class _Parser(ArgumentParser):
    """Errors are one line and exit code 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        _fail(" ".join(_readable(message).split()))


def build_parser() -> ArgumentParser:
    """The parser of `relevit`, made of the functions above: names, types and defaults of their signatures, help of their docstrings."""
    parser = _Parser(prog="relevit", description=ABOUT, version=__version__, formatter_class=_Formatter)
    subcommands = parser.add_subcommands(dest="command", metavar="COMMAND", title="commands", description=MORE)
    for command, function in COMMANDS.items():
        subcommands.add_subcommand(command, _subparser(command, function), help=_summary(function))
    return parser


def _subparser(command: str, function: Callable[..., None]) -> ArgumentParser:
    text = docstring_parser.parse(function.__doc__ or "")
    descriptions = {entry.arg_name: entry.description or "" for entry in text.params}
    about = "\n".join(filter(None, [text.short_description, text.long_description]))
    parser = _Parser(usage=f"relevit {command} {USAGE[command]}", description=about, formatter_class=_Formatter)
    parser.add_argument(
        "--config",
        action="config",
        metavar="FILE",
        help="a YAML file with any of these options, such as one of recipes/; options after it override it",
    )
    types = get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, default = types[name], parameter.default
        required = default is parameter.empty
        shown = "" if required or default is None or default is False else f" (default: {_shown(default)})"
        settings: dict[str, Any] = {"help": descriptions[name].replace("\n", " ").rstrip(".") + shown}
        positional = name in POSITIONAL.get(command, ())
        option = name if positional else "--" + name.replace("_", "-")
        if not required:
            settings["default"] = default
        elif not positional:
            settings["required"] = True
        if kind is not bool and get_origin(kind) is not Literal:
            settings["metavar"] = POSITIONAL.get(command, {}).get(name) or METAVARS.get(name, "X")
        if kind is bool:
            parser.add_argument(option, action=ActionYesNo(no_prefix="no-"), **settings)
        elif get_origin(kind) is list:
            parser.add_argument(option, nargs="+", type=get_args(kind)[0], **settings)
        elif name == "input_size":
            parser.add_argument(option, nargs=2, type=int, **settings)
        else:
            parser.add_argument(option, type=kind, **settings)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses `arguments` (by default the command line's), runs the subcommand; a user's error ends it with exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser()
    if not arguments:
        parser.print_help(sys.stderr)
        sys.exit(2)
    parsed = parser.parse_args(arguments)
    options = parsed[parsed.command].as_dict()
    options.pop("config", None)
    try:
        COMMANDS[parsed.command](**options)
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("relevit: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)


def _fail(message: str) -> NoReturn:
    """One clear line on stderr (a list of faults has one each), exit code 2."""
    print("relevit: error:", message.strip(), file=sys.stderr)
    sys.exit(2)


def _shown(default: object) -> str:
    if default is True:
        return "yes"
    return f"{default:.4g}" if isinstance(default, float) else str(default)


def _summary(function: Callable[..., None]) -> str:
    return (docstring_parser.parse(function.__doc__ or "").short_description or "").split(":")[0].rstrip(".")


def _readable(message: str) -> str:
    """jsonargparse's messages in terms of the options that the user typed."""
    one = re.search(r'Parser key "([\w.]+)"', message)
    value = re.search(r"Given value: (.*)", message)
    if one and value:  # the list of all types that the value is not
        message = f'Parser key "{one[1]}": {value[1].strip()!r} is no valid value'
    message = re.sub(r"'([\w.]+)' is required", lambda found: f"{_option(found[1])} is required", message)
    message = re.sub(r'Parser key "([\w.]+)"', lambda found: _option(found[1]), message)
    return re.sub(rf"\b(?:{'|'.join(COMMANDS)})\.(\w+)", lambda found: _option(found[0]), message)


def _option(key: str) -> str:
    """`finetune.batch_size` is typed as `--batch-size`."""
    command, _, name = key.rpartition(".")
    return POSITIONAL.get(command, {}).get(name) or "--" + name.replace("_", "-")


def _device(name: str | None) -> str:
    if name is not None:
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _stdout() -> Console:
    from rich.console import Console

    # Without a terminal (a file, a pipe) the tables keep their full width.
    return Console() if sys.stdout.isatty() else Console(width=200)


def _stderr() -> Console:
    from rich.console import Console

    return Console(stderr=True)
