"""The paper's seven models with the rates and temperatures of its setup (protocol, "Optimisation"), and models of one's own."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from relevit.errors import UserError
from relevit.models.checkpoints import WEIGHTS

ENDINGS = (".safetensors", ".pth", ".pth.tar", ".pt", ".bin")


@dataclass(frozen=True)
class PaperModel:
    """A model to fine-tune.

    name: in the tables. architecture: timm's name. lr: None lets the rule choose (`finetune --lr auto`). temperature: of the
    classification term. weights: a file's name, where timm has none of its own. probe: a self-supervised backbone, whose linear
    head is trained first. base: one of those that Figure 4 averages over. file: the path of its weights, where they are a file.
    """

    name: str
    architecture: str
    lr: float | None = None
    temperature: float = 1.0
    weights: str | None = None
    probe: bool = False
    base: bool = False
    file: str | None = None

    def spec(self) -> dict[str, Any]:
        """What jobs are told: JSON without the path of the file, which is the place's (places.py), but with a digest of it, so that
        other weights under the same name are not taken for these."""
        told = asdict(self)
        known = {key: told[key] for key in ("name", "architecture", "lr", "temperature", "probe")}
        return known if self.file is None else {**known, "weights": digest(self.file)}

    @property
    def given(self) -> str:
        """As `--models` is told of it."""
        if self.file is None and _NAMES.get(self.name) == self:
            return self.name
        return f"{self.name}={self.architecture}" + ("" if self.file is None else f"@{self.file}")

    @property
    def need(self) -> str | None:
        """The name of the data that its weights are, where timm has none."""
        return f"weights of {self.name} ({self.weights})" if self.weights is not None else None


PAPER_MODELS = (
    PaperModel("ViT-B", "vit_base_patch16_224.orig_in21k_ft_in1k", 3e-6, base=True),
    PaperModel("ViT-L", "vit_large_patch16_224", 9e-7, weights="jx_vit_large_p16_224-4ee7a4dc.pth"),
    PaperModel("AR-S", "vit_small_patch16_224.augreg_in21k_ft_in1k", 2e-6),
    PaperModel("AR-B", "vit_base_patch16_224.augreg_in21k_ft_in1k", 6e-7, base=True),
    PaperModel("AR-L", "vit_large_patch16_224.augreg_in21k_ft_in1k", 9e-7),
    PaperModel("DeiT-S", "deit_small_patch16_224.fb_in1k", 1e-6, 0.55),
    PaperModel("DeiT-B", "deit_base_patch16_224.fb_in1k", 8e-7, 0.65, base=True),
)
SELF_SUPERVISED = PaperModel(
    "DINO-B", "vit_base_patch16_224.dino", None, probe=True
)  # appendix L; which model is our choice
_NAMES = {model.name: model for model in PAPER_MODELS}


def chosen_models(names: Sequence[str], weights: str | None = None) -> tuple[PaperModel, ...]:
    """The models of `--models`: names of the paper's, or NAME=ARCHITECTURE or NAME=ARCHITECTURE@FILE for one's own; none given are
    all seven. weights: a folder in which files of weights lie, called by the timm name or the file's own name.

    Raises UserError for an unknown name, a file that is not there, and a name that is given twice.
    """
    found: dict[str, PaperModel] = {}
    for text in names or list(_NAMES):
        model = _chosen(text)
        if model.name in found:
            raise UserError(f"--models names {model.name} twice")
        found[model.name] = model if model.file else _with_file(model, weights)
    return tuple(found.values())


def _chosen(text: str) -> PaperModel:
    """The model that one name of `--models` stands for; of the paper's the rate and the temperature stay with other weights."""
    name, given, rest = text.partition("=")
    architecture, _, file = rest.partition("@")
    if not given:
        if name not in _NAMES:
            raise UserError(
                f"--models has no {name!r}: choose among {', '.join(_NAMES)}, or give NAME=ARCHITECTURE[@FILE]"
            )
        return _NAMES[name]
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+._-]*", name) or not architecture:
        raise UserError(
            f"--models {text!r} must be NAME=ARCHITECTURE or NAME=ARCHITECTURE@FILE, the name of letters, digits and +._-"
        )
    if file and not Path(file).exists():
        raise UserError(f"--models {text}: there is no file {file}")
    if file and Path(file).is_dir() and not (Path(file) / WEIGHTS).is_file():
        raise UserError(f"--models {text}: the folder {file} holds no checkpoint ({WEIGHTS})")
    model = _NAMES.get(name) or PaperModel(name, architecture, base=True)
    return replace(model, architecture=architecture, weights=None, file=str(Path(file).resolve()) if file else None)


def _with_file(model: PaperModel, weights: str | None) -> PaperModel:
    if weights is None:
        return model
    folder = Path(weights)
    if not folder.is_dir():
        raise UserError(f"--weights {weights} is no folder: name the one that holds files of weights")
    names = [model.weights] if model.weights else []
    names += [f"{model.architecture}{ending}" for ending in ENDINGS]
    for name in names:
        if name is not None and (folder / name).is_file():
            return replace(model, file=str((folder / name).resolve()), weights=None)
    return model


@cache
def digest(path: str) -> str:
    """A digest of a file of weights, or of a checkpoint folder's."""
    place = Path(path)
    file = place / WEIGHTS if place.is_dir() else place
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()[:16]
