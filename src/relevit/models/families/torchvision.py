"""torchvision's VisionTransformer: `torchvision:vit_b_16`, `torchvision:vit_b_16/IMAGENET1K_SWAG_E2E_V1`, and its modules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from relevit.errors import UserError
from relevit.models.checkpoints import CONFIG, WEIGHTS, fill, read_weights
from relevit.models.families.family import (
    Branch,
    Family,
    TokenLayout,
    check_multiple,
    features_before,
    new_linear,
    refuse_words,
    why_not,
    write_own,
)
from relevit.models.families.timm_models import line
from relevit.versions import RELEVIT

_ARGUMENTS = ("image_size", "patch_size", "hidden_dim", "mlp_dim", "dropout", "attention_dropout", "num_classes")
_DEFAULT = {
    "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "interpolation": "bilinear", "crop_pct": 224 / 256,
    "crop_mode": "center",
}  # fmt: skip


class Torchvision(Family):
    """torchvision's classifiers; maps can be had of its VisionTransformer."""

    name = "torchvision"

    def owns(self, module: nn.Module) -> bool:
        return any(kind.__module__.startswith("torchvision.models") for kind in type(module).__mro__)

    def owns_folder(self, config: Mapping[str, Any]) -> bool:
        return "torchvision" in config

    # ---- from and to the disk
    def load(self, source: str | Path, *, pretrained: bool = True, arguments: Mapping[str, Any]) -> nn.Module:
        """NAME, with its newest weights, or NAME/WEIGHTS."""
        refuse_words(source, arguments)
        return _by_name(source, pretrained, dict(arguments)) if isinstance(source, str) else _from_folder(source)

    def check_saves(self, module: nn.Module) -> None:
        reason = self.unsupported_reason(module, readout=False)
        if reason is not None:
            raise UserError(f"a checkpoint could not be loaded again: {reason}")
        own, built = ({n: v.shape for n, v in m.state_dict().items()} for m in (module, _rebuilt(_arguments(module))))
        if own != built:
            raise UserError(
                "the model was altered after torchvision built it, so a checkpoint of it could not be loaded again"
            )

    def save(
        self, folder: Path, module: nn.Module, *, extra: Mapping[str, Any], data_config: Mapping[str, Any] | None
    ) -> None:
        self.check_saves(module)
        preprocessing = dict(data_config or self.data_config(module))
        config = {
            "torchvision": _arguments(module),
            "labels": [name for _, name in sorted(self.labels(module).items())],
            "preprocessing": {key: preprocessing[key] for key in _DEFAULT},
            "relevit": {"version": RELEVIT, **extra},
        }
        write_own(folder, module, config)

    def weights(self, module: nn.Module, folder: Path) -> dict[str, Tensor]:
        return read_weights(folder / WEIGHTS)

    # ---- attention and tokens
    def unsupported_reason(self, module: nn.Module, *, readout: bool = True) -> str | None:
        if not any(kind.__name__ == "VisionTransformer" for kind in type(module).__mro__):
            return why_not(module)
        return None

    def blocks(self, module: nn.Module) -> list[nn.Module]:
        return list(module.encoder.layers)  # type: ignore[union-attr, arg-type]

    def attentions(self, module: nn.Module) -> list[nn.Module]:
        return [block.self_attention for block in self.blocks(module)]  # type: ignore[misc]

    def patch_size(self, module: nn.Module) -> tuple[int, int]:
        return int(module.patch_size), int(module.patch_size)  # type: ignore[arg-type]

    def grid(self, module: nn.Module, height: int, width: int) -> tuple[int, int]:
        size = module.image_size
        if (height, width) != (size, size):
            raise UserError(
                f"images are {height} x {width} pixels, but the model takes {size} x {size}: resize them, or create the model "
                "with another image_size"
            )
        patch = self.patch_size(module)
        check_multiple(patch, height, width)
        return height // patch[0], width // patch[1]

    def prefix(self, module: nn.Module) -> int:
        return 1

    def layout(self, module: nn.Module, height: int, width: int) -> TokenLayout:
        return TokenLayout(self.grid(module, height, width), 1, (Branch("the class token", 0, 1),))

    def channels(self, module: nn.Module) -> int | None:
        return 3

    # ---- outputs
    def labels(self, module: nn.Module) -> dict[int, str]:
        names = getattr(module, "_relevit_labels", None) or []
        return dict(enumerate(names)) if len(names) == self.class_count(module) else {}

    def class_count(self, module: nn.Module) -> int | None:
        head = getattr(getattr(module, "heads", None), "head", None)
        return head.out_features if isinstance(head, nn.Linear) else None

    def data_config(self, module: nn.Module) -> dict[str, Any]:
        """From the weights' own `transforms()`; of a module that came without, torchvision's recipe for ImageNet."""
        given = getattr(module, "_relevit_preprocessing", None) or _DEFAULT
        size = int(getattr(module, "image_size", 224))
        return {"input_size": (3, size, size), **given}

    def check_features(self, module: nn.Module) -> None:
        if self.class_count(module) is None:
            raise UserError(f"{type(module).__name__} has no linear layer heads.head, before which features are taken")

    def features(self, module: nn.Module, images: Tensor) -> Tensor:
        return features_before([module.heads.head], module, images)  # type: ignore[union-attr, list-item]

    def replace_head(self, module: nn.Module, weight: Tensor, bias: Tensor, names: list[str]) -> None:
        self.check_features(module)
        module.heads.head = new_linear(weight, bias, like=module)  # type: ignore[union-attr]
        module.num_classes, module._relevit_labels = len(names), list(names)  # type: ignore[assignment]


def _by_name(name: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    from torchvision import models

    architecture, _, tag = name.removeprefix("torchvision:").partition("/")
    known = models.list_models(module=models)
    if architecture not in known:
        vits = ", ".join(each for each in known if each.startswith("vit_"))
        raise UserError(f"torchvision has no classifier {architecture!r}: its vision transformers are {vits}")
    all_weights = models.get_model_weights(architecture)
    try:
        weights = all_weights[tag] if tag else all_weights.DEFAULT  # type: ignore[misc, attr-defined]
    except KeyError as error:
        raise UserError(
            f"torchvision has no weights {tag!r} of {architecture}: choose {', '.join(each.name for each in all_weights)}"
        ) from error
    classes = arguments.pop("num_classes", None)
    settings = weights.transforms()
    try:
        if not pretrained:
            if tag:
                arguments.setdefault("image_size", settings.crop_size[0])
            module: Any = models.get_model(architecture, weights=None, num_classes=classes or len(weights.meta["categories"]), **arguments)  # fmt: skip
        else:
            module = models.get_model(architecture, weights=weights, **arguments)
    except Exception as error:
        raise UserError(
            f"torchvision could not build {name} or download its weights ({line(error)}): give checkpoint=FILE for weights of "
            "your own"
        ) from error
    module._relevit_labels = list(weights.meta["categories"])
    module._relevit_preprocessing = _view(settings)
    if classes is not None and classes != len(module._relevit_labels):
        module._relevit_labels = []
        if pretrained:
            head = nn.Linear(module.heads.head.in_features, classes)
            module.heads.head, module.num_classes = head, classes
    return module


def _view(settings: Any) -> dict[str, Any]:
    """The numbers of torchvision's `ImageClassification` preset."""
    return {
        "mean": tuple(settings.mean),
        "std": tuple(settings.std),
        "interpolation": settings.interpolation.value,
        "crop_pct": settings.crop_size[0] / settings.resize_size[0],
        "crop_mode": "center",
    }


def _arguments(module: Any) -> dict[str, Any]:
    """What `torchvision.models.VisionTransformer` is built with; torchvision keeps all of it on the module."""
    kept = {name: getattr(module, name) for name in _ARGUMENTS}
    layers = module.encoder.layers
    kept |= {"num_classes": module.heads.head.out_features, "num_layers": len(layers)}
    return {**kept, "num_heads": layers[0].num_heads, "representation_size": module.representation_size}


def _rebuilt(arguments: Mapping[str, Any]) -> nn.Module:
    import torch
    from torchvision.models import VisionTransformer

    with torch.device("meta"):
        return VisionTransformer(**arguments)


def _from_folder(folder: Path) -> nn.Module:
    from torchvision.models import VisionTransformer

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    module: Any = VisionTransformer(**config["torchvision"])
    fill(module, read_weights(folder / WEIGHTS), folder)
    module._relevit_labels = config["labels"]
    given = config["preprocessing"]
    module._relevit_preprocessing = {**given, "mean": tuple(given["mean"]), "std": tuple(given["std"])}
    return module
