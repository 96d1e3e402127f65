"""The command line: every subcommand is a typed function of commands/; its parser is made of its signature and docstring.

Nothing here or at the top of a subcommand's file imports torch: the help answers at once.
"""

from __future__ import annotations

import inspect
import re
import sys
from argparse import Action
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter

from relevit.api.audit import audit
from relevit.api.compose import compose
from relevit.api.convert import convert
from relevit.api.demo import demo
from relevit.api.doctor import doctor
from relevit.api.effects import effects
from relevit.api.evaluate import evaluate
from relevit.api.explain import explain
from relevit.api.finetune import finetune
from relevit.api.info import info
from relevit.api.interpolate import interpolate
from relevit.api.masks import masks
from relevit.api.measure import measure
from relevit.api.probe import probe
from relevit.api.reproduce import reproduce
from relevit.api.split import split
from relevit.errors import UserError
from relevit.versions import RELEVIT

MORE = "`relevit COMMAND --help` lists the options of a command"
ABOUT = "Fine-tune vision transformers so that their relevance maps lie on the object, and measure what that does."


COMMANDS: dict[str, Callable[..., int | None]] = {
    "demo": demo,
    "explain": explain,
    "masks": masks,
    "finetune": finetune,
    "evaluate": evaluate,
    "measure": measure,
    "audit": audit,
    "effects": effects,
    "compose": compose,
    "probe": probe,
    "interpolate": interpolate,
    "info": info,
    "convert": convert,
    "split": split,
    "doctor": doctor,
    "reproduce": reproduce,
}
POSITIONAL = {
    "reproduce": {"names": "NAME"},
    "explain": {"model": "MODEL", "images": "IMAGE"},
    "masks": {"images": "IMAGES"},
    "evaluate": {"models": "MODEL"},
    "measure": {"test": "TEST", "models": "MODEL"},
    "audit": {"models": "MODEL"},
    "effects": {"models": "MODEL"},
    "info": {"model": "MODEL"},
    "interpolate": {"original": "ORIGINAL", "tuned": "FINETUNED"},
    "probe": {"model": "MODEL"},
    "convert": {"format": "FORMAT", "source": "SOURCE"},
}
USAGE = {
    "reproduce": "NAME... --out DIR [--data ROOT] [options]",
    "demo": "[options]",
    "explain": "MODEL IMAGE... [options]",
    "masks": "IMAGES... --out DIR [options]",
    "finetune": "--model MODEL --images DIR --out RUN [--masks DIR] [options]",
    "evaluate": "MODEL... --data DIR... [options]",
    "measure": "TEST MODEL... --data DIR [--masks DIR] [options]",
    "effects": "BEFORE AFTER --data DIR [--out DIR] [options]",
    "audit": "MODEL... --images DIR [--masks DIR] [--out DIR] [options]",
    "compose": "--images DIR --out DIR [--masks DIR] [--backgrounds DIR] [options]",
    "info": "MODEL [options]",
    "interpolate": "ORIGINAL FINETUNED --data DIR... --shifted DIR... --out DIR [options]",
    "probe": "MODEL --images DIR --out PATH [options]",
    "convert": "FORMAT SOURCE --out DIR [--images DIR] [options]",
    "split": "--masks DIR --out FILE [--images DIR] [options]",
    "doctor": "--images DIR --model MODEL [--masks DIR] [options]",
}
METAVARS = {
    "ray": "ADDRESS",
    "slurm_options": "{...}",
    "model": "MODEL",
    "images": "DIR",
    "out": "PATH",
    "masks": "DIR",
    "validation": "DIR",
    "validation_masks": "DIR",
    "data": "DIR",
    "shifted": "DIR",
    "backgrounds": "DIR",
    "train": "DIR",
    "explainer": "NAME",
    "sets": "SET",
    "class_map": "FILE",
    "class_list": "FILE",
    "benchmarks": "NAME",
    "set_a": "FILE",
    "manifest": "FILE",
    "ignore": "DIR",
    "format": "NAME",
    "override": "DIR",
    "exclude": "FILE",
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
    parser = _Parser(prog="relevit", description=ABOUT, version=RELEVIT, formatter_class=_Formatter)
    subcommands = parser.add_subcommands(dest="command", metavar="COMMAND", title="commands", description=MORE)
    for command, function in COMMANDS.items():
        subcommands.add_subcommand(command, _subparser(command, function), help=_summary(function))
    return parser


def _subparser(command: str, function: Callable[..., int | None]) -> ArgumentParser:
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
        shown = (
            "" if required or default is None or default is False or default == [] else f" (default: {_shown(default)})"
        )
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
    """Parses `arguments` (by default the command line's), runs the subcommand; a user's error ends it with exit code 2,
    what it found amiss with the code that the subcommand returns."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    parser = build_parser()
    if not arguments:
        parser.print_help(sys.stderr)
        sys.exit(2)
    _refuse_twice(arguments)
    parsed = parser.parse_args(arguments)
    options = parsed[parsed.command].as_dict()
    options.pop("config", None)
    try:
        code = COMMANDS[parsed.command](**options)
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("relevit: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    if code:
        sys.exit(code)


def _refuse_twice(arguments: Sequence[str]) -> None:
    """Of an option that takes several values and is given twice, argparse would keep the second's alone."""
    function = COMMANDS.get(next((each for each in arguments if not each.startswith("-")), ""))
    if function is None:
        return
    types = get_type_hints(function)
    types.pop("return", None)
    options = {"--" + name.replace("_", "-"): get_origin(kind) is list for name, kind in types.items()}
    typed = [each.partition("=")[0] for each in arguments[: arguments.index("--") if "--" in arguments else None]]
    given: list[str] = []
    for each in typed:  # an option may be shortened to where no other begins alike
        alike = [option for option in options if option.startswith(each)] if each.startswith("--") else []
        given += [each] if each in options else alike if len(alike) == 1 else []
    for option in sorted(option for option, several in options.items() if several):
        if given.count(option) > 1:
            _fail(f"{option} is given {given.count(option)} times: give all its values after one, {option} A B")


def _fail(message: str) -> NoReturn:
    """One clear line on stderr (a list of faults has one each), exit code 2."""
    print("relevit: error:", message.strip(), file=sys.stderr)
    sys.exit(2)


def _shown(default: object) -> str:
    if default is True:
        return "yes"
    return f"{default:.4g}" if isinstance(default, float) else str(default)


def _summary(function: Callable[..., int | None]) -> str:
    return (docstring_parser.parse(function.__doc__ or "").short_description or "").split(":")[0].rstrip(".")


def _readable(message: str) -> str:
    """jsonargparse's messages in terms of the options that the user typed."""
    one = re.search(r'Parser key "([\w.]+)"', message)
    value = re.search(r"Given value: (.*)", message)
    if one and value:  # the list of all types that the value is not
        message = f'Parser key "{one[1]}": {value[1].strip()!r} is no valid value'
    choices = re.search(r"Expected a typing\.Literal\[(.*?)\]\. Got value: (.*)", message)
    if one and choices:
        message = f'Parser key "{one[1]}": must be one of {choices[1].replace(chr(39), "")}, not {choices[2].strip()}'
    message = re.sub(r"'([\w.]+)' is required", lambda found: f"{_option(found[1])} is required", message)
    message = re.sub(r'Parser key "([\w.]+)"', lambda found: _option(found[1]), message)
    return re.sub(rf"\b(?:{'|'.join(COMMANDS)})\.(\w+)", lambda found: _option(found[0]), message)


def _option(key: str) -> str:
    """`finetune.batch_size` is typed as `--batch-size`."""
    command, _, name = key.rpartition(".")
    return POSITIONAL.get(command, {}).get(name) or "--" + name.replace("_", "-")
