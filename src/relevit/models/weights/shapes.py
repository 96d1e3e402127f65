"""The names and shapes of a model's weights without the weights: built on the meta device, its initialisation left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _WithoutInitialisation(TorchFunctionMode):
    """Changes of meta tensors in place, which take most of the time of building a model, are not made."""

    def __torch_function__(
        self, func: Callable, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        tensor = args[0] if args else kwargs.get("tensor")
        if name.endswith("_") and not name.startswith("_") and isinstance(tensor, Tensor) and tensor.is_meta:
            return tensor
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """A context in which models are built on the meta device, at once."""
    with torch.device("meta"), _WithoutInitialisation():
        yield
