"""What is shown where: text and tables on standard output, remarks and bars on standard error, each only for whom it is."""

import io
import sys

import pytest

from relevit import terminal
from relevit.report.table import Table


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("RANK", raising=False)
    return Terminal()


def test_text_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    long = "[bold]no markup[/bold] 1.5 " + "x" * 300
    terminal.show(long, Table("a [title]", ("name", "figure"), [("[b]", "7")]))
    terminal.remark("for the other stream")
    printed = capsys.readouterr()
    assert printed.out.startswith(long + "\n") and "a [title]" in printed.out and "[b]" in printed.out
    assert printed.err == "for the other stream\n"


def test_a_function_called_from_python_tells_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    token = terminal.telling.set(False)
    terminal.tell("silent")
    terminal.telling.set(True)
    terminal.tell("told")
    terminal.telling.reset(token)
    assert capsys.readouterr().out == "told\n"


def test_a_bar_counts_on_a_terminal(screen: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen)
    with terminal.progress("reading [x]", 7) as advance:
        advance(3)
        advance(4)
    with terminal.progress("checking") as advance:
        advance(2, 5)
        advance(3, 5)
    assert "reading [x]" in screen.getvalue() and "7/7" in screen.getvalue() and "5/5" in screen.getvalue()


@pytest.mark.parametrize("reason", ["no terminal", "another process", "not wanted"])
def test_no_bar_where_nobody_looks(reason: str, screen: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO() if reason == "no terminal" else screen)
    if reason == "another process":
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
    token = terminal.bars_wanted.set(reason != "not wanted")
    with terminal.progress("reading", 3) as advance:
        advance(3)
    terminal.bars_wanted.reset(token)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
