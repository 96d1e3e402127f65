"""What a library of models is to everything above: where its attention is, which tokens its logits read, how it is loaded and saved.

`Family` is one object for a library. As it stands it answers for any module that classifies images and tells no more: what needs
attention maps is refused. A library's own file overrides what it knows better; a family of another distribution does the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from relevit.errors import ArgumentError, UserError
from relevit.models.checkpoints import CONFIG, WEIGHTS, own_tensors
from relevit.models.weights.options import WORDS
from relevit.versions import RELEVIT

SUPPORTED = (
    "timm's vision transformers with global attention: ViT, DeiT (also distilled), DeiT III, DINOv2 (also with registers), "
    "BEiT, EVA-02, hybrids, NaFlex, and the image towers of CLIP and SigLIP; transformers' classifiers of the same kinds, torchvision's "
    "VisionTransformer, open_clip's CLIP, and other modules with global self-attention by relevit.wrap"
)


class Branch(NamedTuple):
    """Tokens that the logits read alike: `start` up to `stop`, each with the same part of the branch's `share` of the readout."""

    what: str
    start: int
    stop: int
    share: float = 1.0


@dataclass(frozen=True)
class TokenLayout:
    """Where the patches lie among the tokens, and with which weight the logits read each token.

    grid: rows and columns of the patch grid. prefix: number of tokens before the patches (class, distillation, registers).
    readout: the tokens that are read, whose shares sum to 1; of a model with a pooling attention, its latents.
    pooled: whether a pooling attention comes last, whose latents read the tokens.
    found: how the readout is known, for people. suffix: number of tokens after the patches.
    """

    grid: tuple[int, int]
    prefix: int
    readout: tuple[Branch, ...]
    pooled: bool = False
    found: str = "from the library's own code"
    suffix: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens in the blocks: prefix tokens, patches and what comes after them."""
        return self.prefix + self.grid[0] * self.grid[1] + self.suffix

    def on_grid(self, row: Float[Tensor, "batch keys"]) -> Float[Tensor, "batch rows columns"]:
        """The patches' part of a row over tokens; a pooling attention's keys may leave out the prefix tokens."""
        stop = row.shape[1] - self.suffix
        return row[:, stop - self.grid[0] * self.grid[1] : stop].unflatten(1, self.grid)

    @property
    def span(self) -> slice:
        """The rows within which all that are read lie."""
        return slice(min(branch.start for branch in self.readout), max(branch.stop for branch in self.readout))

    def weigh(self, row: Float[Tensor, "batch rows"]) -> Float[Tensor, "batch rows"]:
        """A row of zeros, with the readout's weight at each token that is read."""
        for branch in self.readout:
            row[:, branch.start : branch.stop] = branch.share / (branch.stop - branch.start)
        return row

    def mean(self, values: Tensor, dim: int) -> Tensor:
        """The mean over rows of dimension `dim` by the readout's weights; the dimension goes."""
        parts = [
            branch.share * values.narrow(dim, branch.start, branch.stop - branch.start).mean(dim)
            for branch in self.readout
        ]
        return torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]


def unwrap(model: nn.Module) -> nn.Module:
    """The module inside wrappers that compute what it computes: of DataParallel, DistributedDataParallel, torch.compile, and
    PEFT, whose adapters are within it (the model itself where there is none)."""
    inner: Any = model
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        inner = model.module
    elif hasattr(model, "_orig_mod"):
        inner = inner._orig_mod
    elif hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
        inner = inner.get_base_model()
    return model if inner is model else unwrap(inner)


def wrapper_reason(model: nn.Module) -> str | None:
    """None, or one sentence that says which wrapper of the model or of its parts cannot be taken off, and what to do."""
    kinds = {kind.__name__ for own in {type(part) for part in model.modules()} for kind in own.__mro__}
    if kinds & {"FullyShardedDataParallel", "FSDPModule"}:
        return (
            "the model is sharded by FSDP, so that no process has all its weights: pass the module as it was before, and start "
            "several processes by torchrun or accelerate launch"
        )
    if any(getattr(config, "is_prompt_learning", False) for config in getattr(model, "peft_config", {}).values()):
        return "the model has prompts of PEFT, which are no patches: pass the module as it was before"
    called: Any = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else unwrap(model)
    if any("_orig_mod" in part._modules for part in called.modules()):  # hasattr is slow where there is none
        return (
            "parts of the model are compiled by torch.compile, which hides their attention maps: pass the model as it was "
            "before, or compile all of it, or its parts in place (part.compile())"
        )
    return None


@contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """A context in which what was compiled in place (`part.compile()`) runs as it is written, and can be looked into."""
    compiled = [(part, part._compiled_call_impl) for part in model.modules() if part._compiled_call_impl is not None]
    try:
        for part, _ in compiled:
            part._compiled_call_impl = None
        yield
    finally:
        for part, call in compiled:
            part._compiled_call_impl = call


class Family:
    """The models of one library. Every `module` is one that the family owns, without wrappers around it."""

    name = "any"

    # ---- which models are mine
    def owns(self, module: nn.Module) -> bool:
        """Whether the module is one of this library's."""
        return False

    def owns_name(self, name: str) -> bool:
        """Whether a text names a model of this library: its own prefix, such as "hf:"."""
        return name.startswith(f"{self.name}:")

    def owns_folder(self, config: Mapping[str, Any]) -> bool:
        """Whether a folder with this `config.json` holds a model as this library (or `save`) writes it."""
        return False

    # ---- from and to the disk
    def load(self, source: str | Path, *, pretrained: bool = True, arguments: Mapping[str, Any]) -> nn.Module:
        """The model of a name or a folder. Raises UserError."""
        raise UserError(f"{source} cannot be loaded as a model")

    def check_saves(self, module: nn.Module) -> None:
        """Raises UserError for a model that `save` could not write, or that could not be loaded again."""
        raise UserError(
            f"This {type(module).__name__} was not built by timm.create_model, so a checkpoint of it could not be "
            "loaded: build it with timm.create_model or relevit.load, whose arguments change its size and depth."
        )

    def save(
        self, folder: Path, module: nn.Module, *, extra: Mapping[str, Any], data_config: Mapping[str, Any] | None
    ) -> None:
        """Write the model into an empty folder, in the library's own form. extra: to be kept beside it, under "relevit"."""
        self.check_saves(module)

    def weights(self, module: nn.Module, folder: Path) -> dict[str, Tensor]:
        """What `save` wrote to a folder, by the names of the module's own state dict."""
        raise UserError(f"the weights in {folder} cannot be read for a {type(module).__name__}")

    # ---- attention and tokens
    def unsupported_reason(self, module: nn.Module, *, readout: bool = True) -> str | None:
        """None for a model that relevance maps can be had of, else one sentence that says why not.

        readout=False asks only for what the blocks need: a backbone without a classifier, or with any pooling, will do.
        """
        name = type(module).__name__
        return f"{name} has no global attention maps over image patches; supported are {SUPPORTED}"

    def attentions(self, module: nn.Module) -> list[nn.Module]:
        """The modules within which attention is computed, once each, in the order of the forward pass; a pooling one last."""
        raise NotImplementedError

    def map_count(self, module: nn.Module) -> int:
        """Attention maps of a forward pass."""
        return len(self.attentions(module))

    def blocks(self, module: nn.Module) -> list[nn.Module]:
        """The transformer's blocks, first to last."""
        raise NotImplementedError

    def patch_size(self, module: nn.Module) -> tuple[int, int]:
        """Height and width of a patch, in pixels."""
        raise NotImplementedError

    def grid(self, module: nn.Module, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the patches of an image. Raises UserError for an image size that the model does not take."""
        raise NotImplementedError

    def prefix(self, module: nn.Module) -> int:
        """Number of tokens before the patches."""
        raise NotImplementedError

    def suffix(self, module: nn.Module) -> int:
        """Number of tokens after the patches."""
        return 0

    def layout(self, module: nn.Module, height: int, width: int) -> TokenLayout:
        """The layout of the tokens for images of height x width pixels."""
        raise NotImplementedError

    def channels(self, module: nn.Module) -> int | None:
        """Channels of an image, None where it is not known."""
        return None

    def obstacle(self, module: nn.Module) -> str | None:
        """A setting under which maps cannot be had now, in one sentence with the remedy; None where there is none."""
        return None

    def visible(self, module: nn.Module) -> AbstractContextManager[None]:
        """A context in which attention is computed by a call that can be intercepted; as before afterwards."""
        return nullcontext()

    def resized(self, module: nn.Module, height: int, width: int) -> AbstractContextManager[None]:
        """A context in which the model takes images of another size, a multiple of the patch; as before afterwards."""
        raise NotImplementedError

    def run_blocks(self, module: nn.Module, images: Tensor) -> None:
        """A forward pass through all blocks, whatever comes of it."""
        module(images)

    def before_rotation(self, module: nn.Module, attention: nn.Module, kind: str) -> nn.Module | None:
        """The module that gives an attention's "key" or "query" before a rotary embedding; None where there is none."""
        return None

    # ---- outputs
    def logits(self, output: Any) -> Any:
        """The logits (batch, classes) in what the module returns."""
        return output

    def class_count(self, module: nn.Module) -> int | None:
        """The number of classes, None where it is not known."""
        return getattr(module, "num_classes", None)

    def labels(self, module: nn.Module) -> dict[int, str]:
        """The model's own class names by index; empty where it has none."""
        names = (getattr(module, "pretrained_cfg", None) or {}).get("label_names") or {}
        pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
        return {int(index): str(name) for index, name in pairs}

    def data_config(self, module: nn.Module) -> dict[str, Any]:
        """What the model was trained with: input_size (3, height, width), mean, std, interpolation, crop_pct, crop_mode."""
        raise NotImplementedError

    def architecture(self, module: nn.Module) -> str:
        """The architecture by name, for people and to tell whether two models are alike."""
        return str((getattr(module, "pretrained_cfg", None) or {}).get("architecture") or type(module).__name__)

    def features(self, module: nn.Module, images: Tensor) -> Tensor:
        """What the head is applied to, (batch, features), of a module that `check_features` accepts: here as timm's models tell
        it; of a distilled DeiT the mean of both tokens, which both heads then share."""
        return module.forward_head(module.forward_features(images), pre_logits=True)  # type: ignore[operator]

    def check_features(self, module: nn.Module) -> None:
        """Raises UserError for a module that does not tell its features."""
        if not hasattr(module, "forward_features") or not hasattr(module, "forward_head"):
            raise UserError(
                f"{type(module).__name__} has no forward_features and forward_head, from which timm models give features"
            )

    def replace_head(self, module: nn.Module, weight: Tensor, bias: Tensor, names: list[str]) -> None:
        """Puts a linear head (classes, features) for classes of these names in the place of the model's."""
        raise UserError(f"{type(module).__name__} has no linear layer called head: a head cannot be trained for it")


def refuse_words(source: object, arguments: Mapping[str, Any]) -> None:
    """Raises UserError where classes are to be described in words, for a model that has a head of its own."""
    for name in WORDS:
        if arguments.get(name) is not None:
            raise ArgumentError(
                name,
                f"does not apply to {source}, which has its own head: it is for models of images and texts (open_clip:, hf: names of "
                "CLIP and SigLIP), and class_names for ARCHITECTURE@FILE too",
            )


RECORD = "relevit.json"


def write_record(folder: Path, extra: Mapping[str, Any]) -> None:
    """What is kept beside a model whose library owns `config.json`."""
    (folder / RECORD).write_text(as_json({"version": RELEVIT, **extra}), encoding="utf-8")


def write_own(folder: Path, module: nn.Module, config: Mapping[str, Any]) -> None:
    """A model in a form of our own: its weights by the names of its state dict, and a `config.json`."""
    safetensors.torch.save_file(own_tensors(module), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(as_json(config), encoding="utf-8")


def as_json(config: Mapping[str, Any]) -> str:
    """The text of a config file. Raises UserError for what JSON cannot hold."""
    try:
        return json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise UserError(
            f"The checkpoint's config cannot be written as JSON ({error}): use plain values only."
        ) from error


def check_multiple(patch: tuple[int, int], height: int, width: int) -> None:
    """Raises UserError for an image that is not cut into whole patches."""
    if height % patch[0] or width % patch[1]:
        raise UserError(
            f"images are {height} x {width} pixels, which is no multiple of the patch size {patch[0]} x {patch[1]}"
        )


def pair(size: Any) -> tuple[int, int]:
    """Height and width of a size that may be one number."""
    return (int(size[0]), int(size[1])) if isinstance(size, (tuple, list)) else (int(size), int(size))


def features_before(heads: Sequence[nn.Module], module: nn.Module, images: Tensor) -> Tensor:
    """What goes into the heads in a forward pass; of several, the mean."""
    seen: list[Tensor] = []
    handles = [head.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for head in heads]
    try:
        module(images)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(seen).mean(dim=0) if len(seen) > 1 else seen[0]


def new_linear(weight: Tensor, bias: Tensor, like: nn.Module) -> nn.Linear:
    """A linear layer of these weights, where and of the type that the parameters of `like` are."""
    parameter = next(like.parameters())
    layer = nn.Linear(weight.shape[1], weight.shape[0], device=parameter.device, dtype=parameter.dtype)
    layer.weight.data.copy_(weight)
    layer.bias.data.copy_(bias)
    return layer


def why_not(module: nn.Module) -> str:
    """One sentence on a model without global attention."""
    lack = _lacks(module)
    why = "" if lack is None else f" (it {lack})"
    return f"{type(module).__name__} has no global attention maps over image patches{why}; supported are {SUPPORTED}"


def of_another_kind(module: nn.Module) -> str | None:
    """The same where it is plain from the names of the model's parts, else None."""
    return None if _lacks(module) is None else why_not(module)


def _lacks(module: nn.Module) -> str | None:
    names = {type(part).__name__.lower() for part in module.modules()}
    if not any("attention" in name or "attn" in name for name in names):
        return "has no attention, of which relevance maps are made"
    if any("window" in name or "swin" in name for name in names):
        return "attends within windows, so that no row of attention reaches from what the logits read to all patches"
    return None
