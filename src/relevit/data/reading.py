"""Reading the lists that come with benchmarks: JSON and text, with errors that name the file."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from relevit.errors import UserError


def read_text(path: Path, what: str) -> str:
    """A text file as UTF-8. Raises UserError where it is missing or cannot be read; `what`: what it holds, for the message."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing ({what}): it comes with the data set") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error}): it should hold {what}"
        ) from error


def read_json(path: Path, what: str, kind: type = dict) -> Any:
    """A JSON file whose top is a `kind` (dict or list). Raises UserError where it is missing, broken, or something else."""
    try:
        content = json.loads(read_text(path, what))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): fetch it again, it should hold {what}") from error
    if not isinstance(content, kind):
        raise UserError(f"{path} should hold {what}, a JSON {'object' if kind is dict else 'list'}")
    return content


def packaged(name: str) -> dict[str, Any]:
    """A JSON list that comes with relevit."""
    text = (resources.files("relevit.data.benchmarks") / "lists" / name).read_text(encoding="utf-8")
    return dict(json.loads(text))
