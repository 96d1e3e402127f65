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
_checkpoint = torch.utils.checkpoint._checkpoint_impl  # behind every name under which `checkpoint` was imported
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
    """torch's own function is in its place while nobody is within `recomputed_within`, in any thread."""
    global _users
    with _lock:
        _users += change
        torch.utils.checkpoint._checkpoint_impl = _checkpointed if _users else _checkpoint


def _checkpointed(function: Any, args: Any, kwargs: Any, **options: Any) -> Any:
    """torch's checkpointing, its repetition in the context that this thread wants."""
    prepare, given = _wanted.get(), options["context_fn"]
    if prepare is None:  # another thread's forward pass
        return _checkpoint(function, args, kwargs, **options)

    make_context = prepare()

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        forward, repetition = given()
        return forward, _Anew(lambda: repetition, make_context)

    return _checkpoint(function, args, kwargs, **{**options, "use_reentrant": False, "context_fn": contexts})


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
