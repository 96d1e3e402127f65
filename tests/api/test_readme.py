"""README.md keeps its word: its links lead somewhere, its example and its line for plain timm run."""

import re
import shlex
from pathlib import Path

import pytest
import timm

from relevit.cli import build_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_links_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_command_is_named() -> None:
    from relevit.api import COMMANDS

    for command in COMMANDS:
        assert re.search(rf"^relevit {command}\b", README, re.M), command


def test_every_command_line_is_one() -> None:
    """The commands of README, docs and recipes are parsed: options that are no more would end them."""
    given = []
    for file in (ROOT / "README.md", ROOT / "docs" / "reproduce.md", *(ROOT / "recipes").glob("*.yaml")):
        for line in re.findall(
            r"^(?:# ?)?(?:torchrun .* -m )?relevit ([a-z]+ .*(?:\\\n.*)*)", file.read_text("utf-8"), re.M
        ):
            words = re.sub(r"\s+#.*", "", line.replace("\\\n", " "))
            if "..." not in words:
                given.append(shlex.split(words))
    assert len(given) > 40
    for command, *words in given:
        build_parser(command).parse_args(words)


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    example, one_line = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(compile(example, "README.md", "exec"), {})
    text = capsys.readouterr().out
    found = re.search(r"shuffled backgrounds: ([\d.]+) % before, ([\d.]+) % after; checkpoint in runs/mine/best", text)
    assert found and float(found[2]) > float(found[1])
    names = {"timm": timm}
    exec(one_line, names)
    assert names["model"].num_classes == 20
