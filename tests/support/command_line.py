"""`relevit` called in the tests' own process, as a user would type it."""

from __future__ import annotations

import pytest

from relevit import cli


def call(*arguments: object) -> None:
    """Runs the command; SystemExit where it ends with another code than 0."""
    cli.main([str(argument) for argument in arguments])


def exit_code(*arguments: object) -> int:
    """Runs the command; returns its exit code."""
    try:
        call(*arguments)
    except SystemExit as stop:
        assert stop.code is None or isinstance(stop.code, int)
        return stop.code or 0
    return 0


def fails(capsys: pytest.CaptureFixture[str], *arguments: object, lines: int | None = 1) -> str:
    """What a user's error prints: one line, or as many as there are faults to list (None: any number)."""
    code = exit_code(*arguments)
    text = capsys.readouterr().err
    assert code == 2 and text.startswith("relevit: error: "), text
    assert lines is None or text.count("\n") == lines, text
    return text
