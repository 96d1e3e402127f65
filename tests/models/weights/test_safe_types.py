"""Nothing of a file is ever run: what could run is refused by name, with the line that makes a file of weights of it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from checkpoint_forms import build
from relevit.errors import UserError
from relevit.models.weights.reading import read


class Payload:
    """What a hostile pickle would hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


class Indirect:
    """The same by way of a safe type's own functions."""

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (Path, "cwd")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    ("payload", "name"), [(Payload(), r"posix\.mkdir|nt\.mkdir"), (Indirect(), r"builtins\.getattr")]
)
@pytest.mark.parametrize("place", ["beside", "whole", "within"])
def test_a_pickle_with_code_is_refused_and_not_run(
    place: str, payload: Any, name: str, legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = {
        "beside": {"state_dict": {"a": torch.ones(2)}, "extra": payload},
        "whole": payload,
        "within": {"state_dict": {"a": payload}},
    }[place]
    torch.save(content, "bad.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match=rf"bad\.pth holds types that could run code, and is refused: ({name})"):
        read("bad.pth")
    assert not (tmp_path / "ran").exists()


def test_a_plain_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 4):
        Path("plain.pth").write_bytes(pickle.dumps({"a": Payload()}, protocol=protocol))
        with pytest.raises(UserError, match=r"plain\.pth"):
            read("plain.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("key", "legacy"), [(None, False), ("model", False), ("model", True)])
def test_the_line_that_converts_a_module_works(
    key: str | None, legacy: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = nn.Linear(2, 3) if legacy else build()
    content: Any = model if key is None else {"epoch": 3, key: model}
    torch.save(content, "whole.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match="holds a whole pickled module") as caught:
        read("whole.pth")
    kind = "torch.nn.modules.linear.Linear" if legacy else "timm.models.vision_transformer.VisionTransformer"
    assert kind in str(caught.value)
    exec(str(caught.value).split("`")[1], {"torch": torch})  # what the user is told to do with a file that he trusts
    assert set(read("weights.pth").content) == set(model.state_dict())


def test_torchscript_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.warns(FutureWarning):
        torch.jit.script(nn.Linear(2, 3)).save("script.pt")
    with pytest.raises(UserError, match="TorchScript archive, which is a program"):
        read("script.pt")


def test_other_types_are_named(tmp_path: Path) -> None:
    torch.save(
        {"model": build().state_dict(), "loss": nn.functional.relu, "schedule": torch.optim.lr_scheduler.StepLR},
        tmp_path / "w.pth",
    )
    with pytest.raises(UserError, match=r"torch\.nn\.functional\.relu, torch\.optim\.lr_scheduler\.StepLR"):
        read(tmp_path / "w.pth")
