"""timm's vision transformers: `vit_base_patch16_224.augreg_in21k_ft_in1k`, `timm:NAME`, `hf-hub:OWNER/NAME`, folders in timm's form."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timm.data import resolve_data_config
from timm.layers import Attention, AttentionPoolLatent, AttentionRope
from timm.models import get_model_input_config, is_model, split_model_name_tag
from timm.models.beit import Attention as BeitAttention
from timm.models.eva import EvaAttention
from timm.models.vision_transformer import ParallelScalingBlock
from timm.models.vision_transformer_relpos import RelPosAttention
from torch import Tensor, nn

from relevit.errors import UserError
from relevit.models.checkpoints import WEIGHTS, read_checkpoint, read_weights
from relevit.models.families.family import (
    SUPPORTED,
    Branch,
    Family,
    TokenLayout,
    check_multiple,
    pair,
    refuse_words,
    why_not,
    write_own,
)
from relevit.models.families.timm_models import by_config, by_name, checkpoint_config
from relevit.models.working import altered

_GLOBAL_ATTENTION = (Attention, AttentionRope, BeitAttention, EvaAttention, RelPosAttention, ParallelScalingBlock)


class Timm(Family):
    """timm's models. Any module that keeps timm's conventions (blocks, patch_embed, num_prefix_tokens) is one."""

    name = "timm"

    def owns(self, module: nn.Module) -> bool:
        return any(kind.__module__.startswith("timm.") for kind in type(module).__mro__) or all(
            hasattr(module, part) for part in ("blocks", "patch_embed", "num_prefix_tokens")
        )

    def owns_name(self, name: str) -> bool:
        return name.startswith(("timm:", "hf-hub:")) or is_model(split_model_name_tag(name)[0])

    def owns_folder(self, config: Mapping[str, Any]) -> bool:
        return "architecture" in config

    def load(self, source: str | Path, *, pretrained: bool = True, arguments: Mapping[str, Any]) -> nn.Module:
        refuse_words(source, arguments)
        if isinstance(source, str):
            return by_name(source.removeprefix("timm:"), pretrained, arguments)
        checkpoint = read_checkpoint(source)
        return by_config(checkpoint.config, checkpoint.weights if pretrained else None, arguments, source)

    def check_saves(self, module: nn.Module) -> None:
        checkpoint_config(module)

    def save(
        self, folder: Path, module: nn.Module, *, extra: Mapping[str, Any], data_config: Mapping[str, Any] | None
    ) -> None:
        write_own(folder, module, checkpoint_config(module, extra=extra, data_config=data_config))

    def weights(self, module: nn.Module, folder: Path) -> dict[str, Tensor]:
        return read_weights(folder / WEIGHTS)

    def unsupported_reason(self, module: nn.Module, *, readout: bool = True) -> str | None:
        name, blocks = type(module).__name__, self.blocks(module)
        if not blocks or _embedding(module) is None or not hasattr(module, "num_prefix_tokens"):
            return why_not(module)
        for block in blocks:
            if sum(isinstance(m, _GLOBAL_ATTENTION) for m in block.modules()) != 1:
                return f"{name} is built of {type(block).__name__} without a single global attention map; supported are {SUPPORTED}"
        if not readout:
            return None
        if getattr(module, "num_classes", 1) == 0:
            return f"{name} has no classifier (num_classes=0), so no class to explain: create it with num_classes=..."
        pool = getattr(module, "attn_pool", None)
        if pool is not None and not (isinstance(pool, AttentionPoolLatent) and pool.pool in ("token", "avg")):
            return f"{name} pools its tokens by {type(pool).__name__}, for which no readout row is defined"
        if pool is None and getattr(module, "global_pool", None) not in ("token", "avg"):
            return (
                f"{name} pools its tokens by {module.global_pool!r}: supported are 'token', 'avg' and attention pooling"
            )
        return None

    def attentions(self, module: nn.Module) -> list[nn.Module]:
        found: list[nn.Module] = [
            next(m for m in block.modules() if isinstance(m, _GLOBAL_ATTENTION)) for block in self.blocks(module)
        ]
        pool = getattr(module, "attn_pool", None)
        return [*found, pool] if isinstance(pool, AttentionPoolLatent) else found

    def blocks(self, module: nn.Module) -> list[nn.Module]:
        return list(getattr(module, "blocks", None) or ())

    def patch_size(self, module: nn.Module) -> tuple[int, int]:
        embed = _embedding(module)
        if hasattr(embed, "backbone"):  # a convolutional stem, which makes patches of its own patches
            return pair(embed.feat_ratio())
        return pair(getattr(embed, "patch_size", None) or embed.feat_ratio())

    def grid(self, module: nn.Module, height: int, width: int) -> tuple[int, int]:
        embed = _embedding(module)
        patch, fixed = self.patch_size(module), getattr(embed, "img_size", None)
        if getattr(embed, "strict_img_size", True) and fixed is not None and tuple(fixed) != (height, width):
            raise UserError(
                f"images are {height} x {width} pixels, but the model takes {fixed[0]} x {fixed[1]}: resize them, or create the "
                f"model with img_size=({height}, {width}) or dynamic_img_size=True"
            )
        if not getattr(embed, "dynamic_img_pad", False):
            check_multiple(patch, height, width)
        if not hasattr(embed, "dynamic_feat_size"):  # NaFlex
            return -(-height // patch[0]), -(-width // patch[1])
        rows, columns = embed.dynamic_feat_size((height, width))
        return int(rows), int(columns)

    def prefix(self, module: nn.Module) -> int:
        return int(module.num_prefix_tokens)  # type: ignore[arg-type]

    def layout(self, module: nn.Module, height: int, width: int) -> TokenLayout:
        grid, prefix, inner = self.grid(module, height, width), self.prefix(module), module
        tokens, pool = prefix + grid[0] * grid[1], getattr(inner, "attn_pool", None)
        if pool is not None:
            latents = pool.latent_len if pool.pool == "avg" else 1
            return TokenLayout(grid, prefix, (Branch("the latents of the pooling attention", 0, latents),), pooled=True)
        if hasattr(inner, "head_dist"):
            branch = Branch("the class and the distillation token", 0, 2)
        elif inner.global_pool == "token":
            branch = Branch("the class token", 0, 1)
        elif getattr(inner, "pool_include_prefix", False):
            branch = Branch("all tokens", 0, tokens)
        else:
            branch = Branch("the patches", prefix, tokens)
        return TokenLayout(grid, prefix, (branch,))

    def channels(self, module: nn.Module) -> int | None:
        embed = _embedding(module)
        if hasattr(embed, "backbone"):
            first = next((part for part in embed.backbone.modules() if isinstance(part, nn.Conv2d)), None)
            return None if first is None else first.in_channels
        return getattr(getattr(embed, "proj", None), "in_channels", None)

    def obstacle(self, module: nn.Module) -> str | None:
        drop: Any = getattr(module, "patch_drop", None)
        if drop is not None and drop.training and getattr(drop, "prob", 0.0):
            return (
                "the model drops patches in training (patch_drop_rate), so that a map has no full grid: create it without, "
                "or call model.eval()"
            )
        return None

    @contextmanager
    def visible(self, module: nn.Module) -> Iterator[None]:
        flags: list[tuple[Any, bool]] = [(attention, attention.fused_attn) for attention in self.attentions(module)]  # type: ignore[misc]
        try:
            for attention, _ in flags:
                attention.fused_attn = True
            yield
        finally:
            for attention, flag in flags:
                attention.fused_attn = flag

    @contextmanager
    def resized(self, module: nn.Module, height: int, width: int) -> Iterator[None]:
        """timm's `set_input_size` resamples the position embedding or the tables of relative positions, and computes rotary ones
        anew. A model that was created with dynamic_img_size=True does the same for each batch and is left alone."""
        inner: Any = module
        fixed = getattr(_embedding(inner), "img_size", None)
        if (
            getattr(inner, "dynamic_img_size", False)
            or hasattr(inner, "embeds")
            or (fixed is not None and tuple(fixed) == (height, width))
        ):
            self.grid(inner, height, width)
            yield
            return
        check_multiple(self.patch_size(inner), height, width)

        def resample() -> None:
            try:
                with warnings.catch_warnings():  # BEiT's tables: timm indexes by lists, which torch finds slow
                    warnings.filterwarnings("ignore", module=r"timm\.layers\.interpolate")
                    inner.set_input_size(img_size=(height, width))
            except Exception as error:
                raise UserError(
                    f"{type(inner).__name__} cannot be made to take images of {height} x {width} pixels ({error}): "
                    f"create it with img_size=({height}, {width})"
                ) from error

        with altered(inner, resample):
            yield

    def run_blocks(self, module: nn.Module, images: Tensor) -> None:
        module.forward_features(images)  # type: ignore[operator]

    def before_rotation(self, module: nn.Module, attention: nn.Module, kind: str) -> nn.Module | None:
        if not isinstance(attention, (EvaAttention, AttentionRope)):
            return None
        return attention.k_norm if kind == "key" else attention.q_norm

    def data_config(self, module: nn.Module) -> dict[str, Any]:
        """As timm records it; the size is the one that the model was built for, not that of its pretrained weights."""
        return timm_data_config(module)

    def replace_head(self, module: nn.Module, weight: Tensor, bias: Tensor, names: list[str]) -> None:
        """Of a distilled DeiT, both heads."""
        module.reset_classifier(len(weight))  # type: ignore[operator]
        heads = [getattr(module, name, None) for name in ("head", "head_dist")]
        layers = [head for head in heads if isinstance(head, nn.Linear)]
        if not layers or layers[0].weight.shape != weight.shape:
            super().replace_head(module, weight, bias, names)
        for layer in layers:
            layer.weight.data.copy_(weight)
            layer.bias.data.copy_(bias)
        given = getattr(module, "pretrained_cfg", None) or {}
        about = {"num_classes": len(names), "label_names": names, "label_descriptions": None}
        module.pretrained_cfg = {**given, **about}  # type: ignore[assignment]


def _embedding(module: Any) -> Any:
    """The module that makes tokens of an image, which NaFlexVit calls otherwise; None where there is none."""
    return getattr(module, "patch_embed", None) or getattr(module, "embeds", None)


def timm_data_config(module: nn.Module) -> dict[str, Any]:
    """Preprocessing as timm records it, or its defaults for a module of which it records nothing."""
    config = dict(resolve_data_config({}, pretrained_cfg=getattr(module, "pretrained_cfg", None) or {}, model=module))
    config["input_size"] = tuple(get_model_input_config(module)["input_size"])
    return config
