"""Lists in files: text, JSON and CSV, read with errors that name the file and what it should hold, and written."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from relevit.errors import UserError
from relevit.files import atomic_write


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """A text file as UTF-8. Raises UserError where it cannot be read; `what`: what it should hold, for the message."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason}): it should hold {what}") from error


def read_lines(path: str | os.PathLike[str], what: str) -> list[str]:
    """The lines of a text file but for blank ones. Raises UserError as `read_text`."""
    return [line for line in read_text(path, what).splitlines() if line.strip()]


def read_json(path: str | os.PathLike[str], what: str, kind: type = dict) -> Any:
    """A JSON file whose top is a `kind` (dict or list). Raises UserError where it is missing, broken, or something else."""
    try:
        content = json.loads(read_text(path, what))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is not valid JSON ({error}): it should hold {what}") from error
    if not isinstance(content, kind):
        raise UserError(f"{path} should hold {what}, a JSON {'object' if kind is dict else 'list'}")
    return content


def read_rows(path: str | os.PathLike[str], what: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file by the names of its columns. Raises UserError where it cannot be read, or lacks a column."""
    reader = csv.DictReader(io.StringIO(read_text(path, what)))
    try:
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{path} cannot be read ({error}): it should hold {what}") from error
    if set(columns) - set(reader.fieldnames or ()) or any(row[column] is None for row in rows for column in columns):
        raise UserError(f"{path} should hold {what}: expected the columns {', '.join(columns)}")
    return rows


def write_rows(path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write rows to a CSV file, atomically; a file that holds them already is left alone."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    content = text.getvalue().encode()
    if not Path(path).is_file() or Path(path).read_bytes() != content:
        atomic_write(path, content)


def packaged(name: str) -> dict[str, Any]:
    """A JSON list that comes with relevit."""
    text = (resources.files("relevit.data.benchmarks") / "lists" / name).read_text(encoding="utf-8")
    return dict(json.loads(text))
