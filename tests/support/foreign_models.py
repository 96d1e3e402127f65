"""Small random models of other libraries, each built by the library's own code."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

CLASSES = 7
_PLAIN = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 48}
_LABELS = {"id2label": {i: f"kind {i}" for i in range(CLASSES)}, "label2id": {f"kind {i}": i for i in range(CLASSES)}}
_TOWER = _PLAIN | {"image_size": 48, "patch_size": 16}

TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ViT": ("ViTConfig", "ViTForImageClassification", {"image_size": 48}),
    "DeiT": ("DeiTConfig", "DeiTForImageClassification", {"image_size": 48}),
    "DeiT with teacher": ("DeiTConfig", "DeiTForImageClassificationWithTeacher", {"image_size": 48}),
    "ViTMSN": ("ViTMSNConfig", "ViTMSNForImageClassification", {"image_size": 48}),
    "BEiT": ("BeitConfig", "BeitForImageClassification", {"image_size": 48, "use_relative_position_bias": True}),
    "BEiT, shared bias, class token": (
        "BeitConfig",
        "BeitForImageClassification",
        {"image_size": 48, "use_shared_relative_position_bias": True, "use_mean_pooling": False},
    ),
    "Data2VecVision": (
        "Data2VecVisionConfig",
        "Data2VecVisionForImageClassification",
        {"image_size": 48, "use_relative_position_bias": True},
    ),
    "Dinov2": ("Dinov2Config", "Dinov2ForImageClassification", {"image_size": 42, "patch_size": 14}),
    "Dinov2WithRegisters": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersForImageClassification",
        {"image_size": 42, "patch_size": 14, "num_register_tokens": 4},
    ),
    "IJepa": ("IJepaConfig", "IJepaForImageClassification", {"image_size": 48}),
    "CLIP": ("CLIPConfig", "CLIPForImageClassification", {"vision_config": _TOWER}),
    "SigLIP": ("SiglipConfig", "SiglipForImageClassification", {"vision_config": _TOWER}),
}


def transformers_model(kind: str, seed: int = 0, **arguments: Any) -> nn.Module:
    """A model of transformers in evaluation mode, its weights large enough that attention is far from uniform."""
    import transformers

    config, model, own = TRANSFORMERS[kind]
    sizes = {} if "vision_config" in own else _PLAIN
    torch.manual_seed(seed)
    built = getattr(transformers, model)(getattr(transformers, config)(**sizes, **_LABELS, **own, **arguments))
    return roughened(built)


def dinov3_backbone() -> nn.Module:
    """transformers has no classifier of this name."""
    import transformers

    torch.manual_seed(0)
    config = transformers.DINOv3ViTConfig(**_PLAIN, image_size=48, patch_size=16, num_register_tokens=4)
    return roughened(transformers.DINOv3ViTModel(config))


def torchvision_model(seed: int = 0, **arguments: Any) -> nn.Module:
    """torchvision's VisionTransformer."""
    from torchvision.models import VisionTransformer

    torch.manual_seed(seed)
    sizes = {"image_size": 48, "patch_size": 16, "num_layers": 3, "num_heads": 3, "hidden_dim": 24, "mlp_dim": 48}
    return roughened(VisionTransformer(**sizes, num_classes=CLASSES, **arguments))


FOREIGN: dict[str, Callable[[], nn.Module]] = {
    **{kind: partial(transformers_model, kind) for kind in TRANSFORMERS},
    "torchvision": torchvision_model,
}
"""One of each class, as a builder."""


def images_for(model: nn.Module, count: int = 2, seed: int = 1) -> torch.Tensor:
    """Normalised noise of the size that a model takes, of its weights' type."""
    from relevit.models.families import of_module

    size = of_module(model).data_config(model)["input_size"]
    dtype = next(model.parameters()).dtype
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def roughened(model: nn.Module) -> nn.Module:
    """The model in evaluation mode with larger weights than at the usual start, so that every path matters."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2 or (parameter == 0).all():
                parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim >= 2 else 0.1))
    return model.eval()
