"""Modules of anybody's code, with the facts that `relevit.wrap` found of them or was given."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from relevit.errors import UserError
from relevit.models.checkpoints import WEIGHTS, read_weights
from relevit.models.families.family import Branch, Family, TokenLayout, features_before, new_linear, write_own
from relevit.versions import RELEVIT

_PREFIX = "module."


@dataclass(frozen=True)
class Facts:
    """What has to be known of a module for relevance maps.

    Attributes:
        image_size: height and width that it takes.
        patch_size: height and width of a patch.
        grid: rows and columns of patches.
        prefix, suffix: tokens before and after the patches.
        readout: the tokens that the logits read.
        attentions: names of the modules within which attention is computed.
        maps: attention maps of a forward pass.
        output: where the logits are in what the module returns: a key, an index, or None for the output itself.
        class_count: number of classes.
        how: how each fact is known, "found" or "given".
    """

    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    grid: tuple[int, int]
    prefix: int
    suffix: int
    readout: tuple[Branch, ...]
    attentions: tuple[str, ...]
    maps: int
    output: str | int | None
    class_count: int
    how: Mapping[str, str]


class Wrapped(nn.Module):
    """A module that returns its logits alone, beside what is known of it: made by `relevit.wrap`."""

    def __init__(
        self, module: nn.Module, facts: Facts, labels: list[str] | None, preprocessing: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.module, self.facts, self.labels, self.preprocessing = module, facts, labels, dict(preprocessing)
        self.training = module.training

    def forward(self, images: Tensor) -> Tensor:
        """The logits (batch, classes)."""
        return select(self.module(images), self.facts.output)


def select(output: Any, place: str | int | None) -> Any:
    """The logits in an output. Raises UserError where they are not."""
    if place is None:
        return output
    try:
        return output[place] if isinstance(place, int) or isinstance(output, Mapping) else getattr(output, place)
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise UserError(
            f"the model's output {type(output).__name__} holds no {place!r}: give another output"
        ) from error


class WrappedModules(Family):
    """What `relevit.wrap` made."""

    name = "wrapped"

    def owns(self, module: nn.Module) -> bool:
        return isinstance(module, Wrapped)

    def owns_name(self, name: str) -> bool:
        return False

    def owns_folder(self, config: Mapping[str, Any]) -> bool:
        return "wrapped" in config

    def load(self, source: str | Path, *, pretrained: bool = True, arguments: Mapping[str, Any]) -> nn.Module:
        raise UserError(
            f"{source} holds the weights of a wrapped module, whose code is yours: build it, wrap it by relevit.wrap, and call "
            f"relevit.load(module, checkpoint={str(source)!r})"
        )

    def check_saves(self, module: nn.Module) -> None:
        pass

    def save(
        self, folder: Path, module: Any, *, extra: Mapping[str, Any], data_config: Mapping[str, Any] | None
    ) -> None:
        """The weights by the names of the module's own state dict, which takes them back."""
        config = {
            "wrapped": type(module.module).__name__,
            "facts": asdict(module.facts),
            "labels": module.labels,
            "preprocessing": dict(data_config or self.data_config(module)),
            "relevit": {"version": RELEVIT, **extra},
        }
        write_own(folder, module.module, config)

    def weights(self, module: nn.Module, folder: Path) -> dict[str, Tensor]:
        return {_PREFIX + name: value for name, value in read_weights(folder / WEIGHTS).items()}

    def unsupported_reason(self, module: nn.Module, *, readout: bool = True) -> str | None:
        return None

    def attentions(self, module: Any) -> list[nn.Module]:
        return [module.module.get_submodule(name) for name in module.facts.attentions]

    def map_count(self, module: Any) -> int:
        return module.facts.maps

    def blocks(self, module: Any) -> list[nn.Module]:
        """The parts that hold one attention each, as the names of the attentions tell."""
        paths = [name.split(".") if name else [] for name in module.facts.attentions]
        same = 0
        while len(paths) > 1 and all(len(path) > same and path[same] == paths[0][same] for path in paths):
            same += 1
        return [module.module.get_submodule(".".join(path[: same + 1])) for path in paths]

    def patch_size(self, module: Any) -> tuple[int, int]:
        return module.facts.patch_size

    def grid(self, module: Any, height: int, width: int) -> tuple[int, int]:
        size = module.facts.image_size
        if (height, width) != tuple(size):
            raise UserError(
                f"images are {height} x {width} pixels, but the module was wrapped for {size[0]} x {size[1]}: resize them, or wrap "
                "it with another image_size"
            )
        return module.facts.grid

    def prefix(self, module: Any) -> int:
        return module.facts.prefix

    def suffix(self, module: Any) -> int:
        return module.facts.suffix

    def layout(self, module: Any, height: int, width: int) -> TokenLayout:
        facts = module.facts
        found = "by the derivative of the logits by the last block's tokens"
        how = found if facts.how.get("readout") == "found" else "as given to relevit.wrap"
        return TokenLayout(
            self.grid(module, height, width), facts.prefix, facts.readout, found=how, suffix=facts.suffix
        )

    def resized(self, module: nn.Module, height: int, width: int) -> Any:
        self.grid(module, height, width)
        return nullcontext()

    def class_count(self, module: Any) -> int | None:
        return module.facts.class_count

    def labels(self, module: Any) -> dict[int, str]:
        return dict(enumerate(module.labels or []))

    def data_config(self, module: Any) -> dict[str, Any]:
        return {"input_size": (3, *module.facts.image_size), **module.preprocessing}

    def architecture(self, module: Any) -> str:
        return type(module.module).__name__

    def _head(self, module: Any) -> str:
        """The name of the last linear layer with as many outputs as there are classes. Raises UserError."""
        linears = [
            name
            for name, part in module.module.named_modules()
            if isinstance(part, nn.Linear) and part.out_features == module.facts.class_count
        ]
        if not linears:
            raise UserError(f"{type(module.module).__name__} has no linear layer that gives its logits")
        return linears[-1]

    def check_features(self, module: nn.Module) -> None:
        self._head(module)

    def features(self, module: Any, images: Tensor) -> Tensor:
        """What goes into the linear layer that gives the logits."""
        return features_before([module.module.get_submodule(self._head(module))], module, images)

    def replace_head(self, module: Any, weight: Tensor, bias: Tensor, names: list[str]) -> None:
        parent, _, name = self._head(module).rpartition(".")
        setattr(module.module.get_submodule(parent), name, new_linear(weight, bias, like=module))
        module.facts, module.labels = replace(module.facts, class_count=len(names)), list(names)
