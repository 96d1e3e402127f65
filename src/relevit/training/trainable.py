"""Which weights of a model are trained: all, the attention's, those of the last blocks, or low-rank adapters.

"all": every weight that requires a gradient. "attention": those of the attention modules alone (projections, their norms
and biases). "last:K": those of the last K blocks alone, without what comes after them. "lora:R": none of the model's own;
a product of two matrices of rank R is added to each linear layer of the attention modules (Hu et al. 2021), its scale 1,
the second matrix zero at the start. Weights that the caller froze stay frozen. Nothing that is frozen gets to the
optimiser, so that weight decay does not move it either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from relevit.errors import UserError
from relevit.models.attention import attention_modules, unsupported_reason
from relevit.models.families import of_module
from relevit.models.families.family import unwrap

_CHOICES = "all, attention, last:K (the last K blocks) or lora:R (adapters of rank R)"


class _Layer(NamedTuple):
    """A linear layer with adapters: the module that holds it and its name there, itself, and what stands in its place."""

    parent: nn.Module
    name: str
    plain: nn.Linear
    adapted: Any


def _parse(trainable: str) -> tuple[str, int]:
    """("last", 3) for "last:3". Raises UserError."""
    kind, colon, number = str(trainable).partition(":")
    if trainable in ("all", "attention"):
        return kind, 0
    if kind in ("last", "lora") and colon and number.isdecimal() and int(number) > 0:
        return kind, int(number)
    raise UserError(f"trainable must be {_CHOICES}, not {trainable!r}")


def _chosen(model: nn.Module, kind: str, number: int) -> list[nn.Parameter]:
    """The model's own weights that are trained."""
    if kind == "all":
        modules: list[nn.Module] = [model]
    elif kind == "attention":
        modules = attention_modules(model, readout=False)
    elif kind == "last":
        modules = of_module(model).blocks(unwrap(model))[-number:]
    else:
        modules = []
    named = {id(p): p for module in modules for p in module.parameters() if p.requires_grad}
    return [p for p in model.parameters() if id(p) in named]


def _linears(model: nn.Module) -> list[tuple[str, nn.Module, str, nn.Linear]]:
    """The linear layers of the attention modules: full name, parent, name there, layer."""
    inside = {id(module) for attention in attention_modules(model, readout=False) for module in attention.modules()}
    linears = []
    for name, module in model.named_modules():
        if id(module) in inside and isinstance(module, nn.Linear):
            parent, _, last = name.rpartition(".")
            linears.append((name, model.get_submodule(parent), last, module))
    return linears


def check_trainable(model: nn.Module, trainable: str) -> None:
    """Raise UserError unless `TrainableWeights(model, trainable)` would have something to train."""
    kind, number = _parse(trainable)
    if kind != "all":
        reason = unsupported_reason(model, readout=False)
        if reason is not None:
            raise UserError(f"trainable={trainable!r} is for vision transformers: {reason}")
    if kind == "last":
        depth = len(of_module(model).blocks(unwrap(model)))
        if number > depth:
            raise UserError(f"trainable={trainable!r}, but the model has {depth} blocks: give last:{depth} or fewer")
    if kind == "lora":
        _peft()
    elif not _chosen(model, kind, number):
        raise UserError("no weight of the model requires a gradient: nothing would be trained")


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise UserError("low-rank adapters need the library peft: pip install relevit[lora]") from error
    return peft


class TrainableWeights:
    """A context in which `parameters` are what is trained of the model, and nothing else requires a gradient.

    Afterwards the model is built as before and requires gradients where it did. The adapters of "lora:R" are then gone:
    whoever wants what they learnt saves the weights within `merged`. They are drawn from `seed`. Raises UserError as
    `check_trainable` does.
    """

    def __init__(self, model: nn.Module, trainable: str = "all", seed: int = 0) -> None:
        check_trainable(model, trainable)
        self.model, self.layers = model, list[_Layer]()
        self._undo = ExitStack()
        kind, number = _parse(trainable)
        flags = [(p, p.requires_grad) for p in model.parameters()]
        self.parameters = _chosen(model, kind, number)
        self._undo.callback(lambda: [p.requires_grad_(flag) for p, flag in flags])
        if kind != "all":
            model.requires_grad_(False)
            for parameter in self.parameters:
                parameter.requires_grad_()
        if kind == "lora":
            try:
                self._adapt(number, seed)
            except BaseException:
                self.remove()
                raise

    def _adapt(self, rank: int, seed: int) -> None:
        linears = _linears(self.model)
        for attention in attention_modules(self.model, readout=False):
            if getattr(attention, "qkv_bias_separate", None) is False:
                # timm then multiplies by qkv.weight itself, past an adapter: let it call the layer and add the bias
                attention.qkv_bias_separate = True  # type: ignore[assignment]
                self._undo.callback(setattr, attention, "qkv_bias_separate", False)
        peft = _peft()
        config = peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=[name for name, *_ in linears])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            peft.inject_adapter_in_model(config, self.model)
        self._undo.callback(self._put_back)
        self.layers = [_Layer(parent, name, plain, getattr(parent, name)) for _, parent, name, plain in linears]
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]

    def _put_back(self) -> None:
        for layer in self.layers:
            setattr(layer.parent, layer.name, layer.plain)
        self.layers = []
        self.model.__dict__.pop("peft_config", None)

    @contextmanager
    def merged(self) -> Iterator[nn.Module]:
        """The model as its library built it, what adapters have learnt within its own weights; as before afterwards, to the bit."""
        kept = [layer.plain.weight.detach().clone() for layer in self.layers]
        try:
            with torch.no_grad():
                for layer in self.layers:
                    layer.plain.weight.add_(layer.adapted.get_delta_weight("default").to(layer.plain.weight.dtype))
                    setattr(layer.parent, layer.name, layer.plain)
            yield self.model
        finally:
            with torch.no_grad():
                for layer, weight in zip(self.layers, kept, strict=True):
                    layer.plain.weight.copy_(weight)
                    setattr(layer.parent, layer.name, layer.adapted)

    def remove(self) -> None:
        """Build the model as before; once is enough."""
        self._undo.close()

    def __enter__(self) -> TrainableWeights:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
