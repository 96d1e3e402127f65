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


class OwnSoftmax(nn.Module):
    """A transformer in code of its own: one module, heads folded into the batch, class token and mean side by side."""

    def __init__(self, dim: int = 24, depth: int = 3, heads: int = 3) -> None:
        super().__init__()
        self.heads, self.embed = heads, nn.Conv2d(3, dim, 16, 16)
        self.first, self.places = nn.Parameter(torch.randn(1, 1, dim)), nn.Parameter(torch.randn(1, 10, dim))
        self.qkv = nn.ModuleList(nn.Linear(dim, 3 * dim) for _ in range(depth))
        self.out = nn.ModuleList(nn.Linear(dim, dim) for _ in range(depth))
        self.head = nn.Linear(2 * dim, CLASSES)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Logits among other things."""
        patches = self.embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(images), -1, -1), patches], dim=1) + self.places
        for qkv, out in zip(self.qkv, self.out, strict=True):
            q, k, v = (
                part.unflatten(2, (self.heads, -1)).transpose(1, 2).flatten(0, 1) for part in qkv(x).chunk(3, dim=-1)
            )
            weights = torch.softmax(torch.bmm(q, k.transpose(1, 2)) / q.shape[-1] ** 0.5, dim=-1)
            mixed = torch.bmm(weights, v).unflatten(0, (-1, self.heads)).transpose(1, 2).flatten(2)
            x = x + out(mixed).tanh()
        return {"tokens": x, "scores": self.head(torch.cat([x[:, 0], x[:, 1:].mean(dim=1)], dim=1))}


class DinoStyle(nn.Module):
    """Blocks in the manner of DINO's: x and attention returned from a module that writes its softmax out."""

    class Attention(nn.Module):
        """qkv in one layer; returns its weights, too."""

        def __init__(self, dim: int, heads: int) -> None:
            super().__init__()
            self.heads, self.qkv, self.proj, self.attn_drop = (
                heads,
                nn.Linear(dim, 3 * dim),
                nn.Linear(dim, dim),
                nn.Dropout(0.1),
            )

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            """(x, weights)."""
            q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            weights = self.attn_drop((q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1))
            return self.proj((weights @ v).transpose(1, 2).flatten(2)), weights

    def __init__(self, dim: int = 24, depth: int = 3, heads: int = 3) -> None:
        super().__init__()
        self.patch_embed, self.cls_token = nn.Conv2d(3, dim, 16, 16), nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embed, self.attentions = (
            nn.Parameter(torch.randn(1, 10, dim)),
            nn.ModuleList(self.Attention(dim, heads) for _ in range(depth)),
        )
        self.norms, self.head = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth)), nn.Linear(dim, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of the class token."""
        x = self.patch_embed(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for norm, attention in zip(self.norms, self.attentions, strict=True):
            x = x + attention(norm(x))[0]
        return self.head(x[:, 0])


def vit_pytorch_model(kind: str) -> nn.Module:
    """A model of vit-pytorch, of 3 x 3 patches and three blocks."""
    from vit_pytorch import SimpleViT, ViT
    from vit_pytorch.distill import DistillableViT
    from vit_pytorch.simple_vit_with_register_tokens import SimpleViT as WithRegisters

    torch.manual_seed(0)
    sizes = {
        "image_size": 48,
        "patch_size": 16,
        "dim": 24,
        "depth": 3,
        "heads": 3,
        "mlp_dim": 48,
        "dim_head": 8,
        "num_classes": CLASSES,
    }
    kinds = {
        "ViT": ViT,
        "mean": partial(ViT, pool="mean"),
        "SimpleViT": SimpleViT,
        "registers": WithRegisters,
        "distilled": DistillableViT,
    }
    return roughened(kinds[kind](**sizes))


def seeded(kind: Callable[[], nn.Module]) -> nn.Module:
    """A model of its own code, always the same one."""
    torch.manual_seed(0)
    return roughened(kind())


WRAPPED: dict[str, Callable[[], nn.Module]] = {
    **{
        f"vit-pytorch {kind}": partial(vit_pytorch_model, kind)
        for kind in ("ViT", "mean", "SimpleViT", "registers", "distilled")
    },
    "own softmax": partial(seeded, OwnSoftmax),
    "DINO's style": partial(seeded, DinoStyle),
    "torchvision as it is": torchvision_model,
}


def wrapped_model(kind: str) -> nn.Module:
    """One of `WRAPPED` with the facts that are found of it."""
    from relevit.models.wrapping import wrap

    return wrap(WRAPPED[kind](), 48, verbose=False, check=False)


FOREIGN: dict[str, Callable[[], nn.Module]] = {
    **{kind: partial(transformers_model, kind) for kind in TRANSFORMERS},
    "torchvision": torchvision_model,
    **{f"wrapped {kind}": partial(wrapped_model, kind) for kind in ("vit-pytorch registers", "own softmax")},
}
"""One of each class, as a builder."""
