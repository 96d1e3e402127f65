"""The command line: a command is the public function of its name in api/, parsed, called, its result shown.

Names, types and defaults of the options are those of the function, their help is its docstring. Only the file of the
command that is called is imported, and none of them imports torch: the help answers at once.
"""

from __future__ import annotations

import difflib
import re
import sys
from argparse import Action
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args, get_origin

from relevit.api import COMMANDS, function_name
from relevit.api.file_options import file_arguments, help_of, told_of_files
from relevit.api.types import Argument, arguments_of
from relevit.errors import ArgumentError, UserError, new_name
from relevit.processes import is_first
from relevit.terminal import telling
from relevit.versions import RELEVIT

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

ABOUT = "Fine-tune vision transformers so that their relevance maps lie on the object, and measure what that does."


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that `arguments` name (by default the command line's).

    A user's error ends it with exit code 2; what it found amiss, with the `exit_code` of the result.
    """
    command, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or [""]
    if command in ("", "-h", "--help"):
        print(overview(), file=sys.stdout if command else sys.stderr)
        sys.exit(0 if command else 2)
    if command == "--version":
        print(f"relevit {RELEVIT}")
        sys.exit()
    if command not in COMMANDS:
        _fail(f"there is no command {command}{_meant(command, COMMANDS)}; relevit --help lists them")
    function = public_function(command)
    telling.set(is_first())
    try:
        options = _parsed(command, rest)
        result = function(**options)
        _show(command, result, options)
    except ArgumentError as error:
        _fail(f"{_spelled(function, error.name)} {error.reason}")
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print("relevit: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    code = getattr(result, "exit_code", 0)
    if code:
        sys.exit(code)


def public_function(command: str) -> Callable[..., Any]:
    """The function that a command is."""
    name = function_name(command)
    return getattr(import_module(f"relevit.api.{name}"), name)


def overview() -> str:
    """The help of `relevit` itself: each command with the first sentence of its function."""
    from textwrap import wrap

    width = max(map(len, COMMANDS)) + 4
    lines = ["usage: relevit COMMAND [options]", "", ABOUT, "", "commands:"]
    for command in COMMANDS:
        first = (public_function(command).__doc__ or "").split("\n\n")[0].split(":")[0].rstrip(".")
        lines += wrap(first, 110, initial_indent=f"  {command:{width - 2}}", subsequent_indent=" " * width)
    return "\n".join(
        [*lines, "", "`relevit COMMAND --help` lists the options of a command, `relevit --version` tells the version."]
    )


def build_parser(command: str) -> ArgumentParser:
    """The parser of a command, made of its function: names, types and defaults of the signature, help of the docstring."""
    import docstring_parser
    from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter

    class Formatter(DefaultHelpFormatter):
        """The help is what the docstrings say and the default."""

        def _get_help_string(self, action: Action) -> str:
            return action.help or ""

    class Parser(ArgumentParser):
        """Errors are one line and exit code 2."""

        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            _fail(" ".join(_readable(function, message).split()))

    function = public_function(command)
    expected = arguments_of(function)
    text = docstring_parser.parse(function.__doc__ or "")
    about = "\n".join(filter(None, [text.short_description, text.long_description]))
    usage = [each.usage for each in sorted(expected.values(), key=lambda each: not each.positional) if each.required]
    parser = Parser(
        usage=" ".join(["relevit", command, *usage, "[options]"]), description=about, formatter_class=Formatter
    )
    told = "a YAML file with any of these options, such as one of recipes/; options after it override it"
    parser.add_argument("--config", action="config", metavar="FILE", help=told)
    more = file_arguments(function)
    descriptions = {entry.arg_name: entry.description or "" for entry in text.params}
    descriptions |= {name: help_of(argument) for name, argument in more.items()}
    for argument in [*expected.values(), *more.values()]:
        settings: dict[str, Any] = {
            "help": descriptions[argument.name].replace("\n", " ").rstrip(".") + _default(argument)
        }
        if argument.kind is bool:
            parser.add_argument(
                argument.spelled, action=ActionYesNo(no_prefix="no-"), default=argument.default, **settings
            )
        else:
            name = argument.option if argument.positional else argument.spelled
            parser.add_argument(name, **settings, **_settings(argument))
    return parser


def _settings(argument: Argument) -> dict[str, Any]:
    """How the parser reads one argument that is no flag."""
    settings: dict[str, Any] = {"type": argument.kind}
    if argument.several:
        settings = {"type": get_args(argument.kind)[0], "nargs": "+"}
    elif get_origin(argument.kind) is tuple:
        settings = {"type": get_args(argument.kind)[0], "nargs": len(get_args(argument.kind))}
    if get_origin(argument.kind) is not Literal:
        settings["metavar"] = argument.metavar
    if not argument.required:
        settings["default"] = list(argument.default) if isinstance(argument.default, tuple) else argument.default
    elif not argument.positional:
        settings["required"] = True
    return settings


def _parsed(command: str, rest: Sequence[str]) -> dict[str, Any]:
    """The values of the function's parameters."""
    function = public_function(command)
    expected = arguments_of(function)
    _refuse(function, [each.partition("=")[0] for each in rest[: rest.index("--") if "--" in rest else None]])
    parsed = build_parser(command).parse_args(list(rest)).as_dict()
    values = {name: parsed[argument.option] for name, argument in expected.items()}
    pairs = [name for name, value in values.items() if value and get_origin(expected[name].kind) is tuple]
    values |= {name: tuple(values[name]) for name in pairs}
    return told_of_files(function, values, {name: parsed[name] for name in file_arguments(function)})


def _refuse(function: Callable[..., Any], typed: Sequence[str]) -> None:
    """Options that do not exist, with the one that is meant; and one of several values that is given twice: argparse would
    keep the second's alone."""
    options = [*arguments_of(function).values(), *file_arguments(function).values()]
    expected = {each.spelled: each for each in options if not each.positional}
    known = [*expected, *(f"--no-{each.option.replace('_', '-')}" for each in expected.values() if each.kind is bool)]
    given: list[str] = []
    for word in typed:  # an option may be shortened to where no other begins alike
        alike = [option for option in known if option.startswith(word)] if word.startswith("--") else []
        given += [word] if word in known else alike if len(alike) == 1 else []
        if word.startswith("--") and not alike and word not in ("--", "--help", "--config", "--print_config"):
            name = word.removeprefix("--").replace("-", "_")
            new = new_name(function, name) or new_name(function, name.removeprefix("no_"))
            _fail(f"{word} is now called --{new}" if new else f"there is no option {word}{_meant(word, known)}")
    for option, argument in expected.items():
        if argument.several and given.count(option) > 1:
            _fail(f"{option} is given {given.count(option)} times: give all its values after one, {option} A B")


def _show(command: str, result: Any, given: dict[str, Any]) -> None:
    """What the file of the command tells of the result; by the first of several processes."""
    show = getattr(import_module(f"relevit.api.{function_name(command)}"), "show", None)
    if show is not None and result is not None and is_first():
        show(result, given)


def _meant(word: str, known: Sequence[str]) -> str:
    """A word that was typed wrongly, what may have been meant."""
    close = difflib.get_close_matches(word.strip("-"), [each.strip("-") for each in known], n=1)
    return f": did you mean {'--' if word.startswith('--') else ''}{close[0]}?" if close else ""


def _fail(message: str) -> NoReturn:
    """One clear line on stderr (a list of faults has one each), exit code 2."""
    print("relevit: error:", message.strip(), file=sys.stderr)
    sys.exit(2)


def _default(argument: Argument) -> str:
    """The default as the help tells it."""
    value = list(argument.default) if isinstance(argument.default, tuple) else argument.default
    if argument.required or value is None or value is False or value == []:
        return ""
    shown = "yes" if value is True else f"{value:.4g}" if isinstance(value, float) else str(value)
    return f" (default: {shown})"


def _readable(function: Callable[..., Any], message: str) -> str:
    """jsonargparse's messages in terms of the options that the user typed."""
    key = re.search(r'Parser key "([\w.]+)"', message)
    value = re.search(r"Given value: (.*)", message)
    if key and value:  # the list of all types that the value is not
        message = f'Parser key "{key[1]}": {value[1].strip()!r} is no valid value'
    choices = re.search(r"Expected a typing\.Literal\[(.*?)\]\. Got value: (.*)", message)
    if key and choices:
        message = f'Parser key "{key[1]}": must be one of {choices[1].replace(chr(39), "")}, not {choices[2].strip()}'
    if missing := re.search(r"arguments are required: (.*)", message):
        names = [_spelled(function, name) for name in missing[1].split(", ")]
        message = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} required"
    if unknown := re.search(r"Option '(\w+)' is not accepted", message):  # of a file of options
        new = new_name(function, unknown[1])
        message = f"{unknown[1]} is now called {new}" if new else message
    message = re.sub(r"'([\w.]+)' is required", lambda match: f"{_spelled(function, match[1])} is required", message)
    return re.sub(r'Parser key "([\w.]+)"', lambda match: _spelled(function, match[1]), message)


def _spelled(function: Callable[..., Any], name: str) -> str:
    """`batch_size` is typed as `--batch-size`."""
    for argument in arguments_of(function).values():
        if name in (argument.name, argument.option):
            return argument.spelled
    return "--" + name.replace("_", "-")
