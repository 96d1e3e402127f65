"""Gradient checkpointing (Chen et al. 2016): parts of a model whose activations are not kept, but computed again in the backward pass.

What alters a forward pass from outside (attention that is answered by us, a choice of kernels) has to alter its repetition,
too, which comes when the altering context has ended: in the backward pass of a logit, and once more in that of a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from threading import Lock
from typing import Any

import torch.utils.checkpoint
from torch import nn

Contexts = Callable[[], AbstractContextManager[Any]]

_wanted: ContextVar[Callable[[], Contexts] | None] = ContextVar("wanted", default=None)
_lock = Lock()
_users = 0


@contextmanager
def recomputed_within(prepare: Callable[[], Contexts] = lambda: nullcontext) -> Iterator[None]:
    """A context for a forward pass: what `torch.utils.checkpoint` runs in it is repeated in a new context each time.

    prepare: called where such a part begins in the forward pass, makes the function that makes the contexts of its repetitions.

    All checkpointing in it is of the kind that is not reentrant, also where the model asks for the other one. Its results are
    the same; and it allows for gradients of anything (`torch.autograd.grad`), several backward passes and second derivatives.
    """
    token = _wanted.set(prepare)
    _count_users(1)
    try:
        yield
    finally:
        _count_users(-1)
        _wanted.reset(token)


def _count_users(change: int) -> None:
    """torch's own functions are in their places while nobody is within `recomputed_within`, in any thread."""
    global _users
    with _lock:
        _users += change
        for name, function in (_OURS if _users else _TORCHS).items():
            setattr(torch.utils.checkpoint, name, function)


def _checkpointed(function: Any, args: Any, kwargs: Any, **options: Any) -> Any:
    """torch's checkpointing, its repetition in the context that this thread wants."""
    prepare = _wanted.get()
    if prepare is not None:  # else another thread's forward pass
        options = {**options, "use_reentrant": False, "context_fn": _contexts(options["context_fn"], prepare())}
    return _TORCHS["_checkpoint_impl"](function, args, kwargs, **options)


def _generator(function: Any, preserve: bool, context_fn: Any, *more: Any, **kwargs: Any) -> Any:
    """The same for an older torch, which hands what is not reentrant to this generator."""
    prepare = _wanted.get()
    context_fn = context_fn if prepare is None else _contexts(context_fn, prepare())
    return _TORCHS["_checkpoint_without_reentrant_generator"](function, preserve, context_fn, *more, **kwargs)


class _NeverReentrant:
    """For an older torch, which hands what is reentrant to a class of this name."""

    @staticmethod
    def apply(function: Any, preserve: bool, *args: Any) -> Any:
        if _wanted.get() is None:
            return _TORCHS["CheckpointFunction"].apply(function, preserve, *args)
        return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False, preserve_rng_state=preserve)


def _contexts(given: Any, make_context: Contexts) -> Any:
    """A `context_fn` whose second context is the given one and a new one of ours within it."""

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        forward, repetition = given()
        return forward, _Anew(lambda: repetition, make_context)

    return contexts


# Behind every name under which `checkpoint` was imported: one function in today's torch; in torch 2.11 two.
_OURS: dict[str, Any] = (
    {"_checkpoint_impl": _checkpointed}
    if hasattr(torch.utils.checkpoint, "_checkpoint_impl")
    else {"_checkpoint_without_reentrant_generator": _generator, "CheckpointFunction": _NeverReentrant}
)
_TORCHS: dict[str, Any] = {name: getattr(torch.utils.checkpoint, name) for name in _OURS}


class _Anew:
    """A context that enters one of each of `makers`, outermost first, each time."""

    def __init__(self, *makers: Contexts) -> None:
        self.makers, self.entered = makers, list[AbstractContextManager[Any]]()

    def __enter__(self) -> None:
        for make in self.makers:
            context = make()
            context.__enter__()
            self.entered.append(context)

    def __exit__(self, *error: Any) -> None:
        while self.entered:
            self.entered.pop().__exit__(*error)


@contextmanager
def recomputing(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """A context in which each of a model's blocks keeps its input alone, and computes the rest again in a backward pass."""
    own = [vars(block).get("forward") for block in blocks]
    try:
        for block in blocks:
            block.forward = partial(torch.utils.checkpoint.checkpoint, block.forward, use_reentrant=False)
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            vars(block).pop("forward", None)
            if forward is not None:
                block.forward = forward
