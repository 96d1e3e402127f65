"""Small members of every supported model family: (name in timm, arguments, image size, prefix tokens, readout)."""

import timm
import torch
from timm.models.vision_transformer import ParallelScalingBlock
from torch import nn

SMALL = {"embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 7}

FAMILIES = {
    "vit": ("vit_tiny_patch16_224", {}, (48, 80), 1, "cls"),
    "vit_patch8": ("vit_small_patch8_224", {}, (24, 40), 1, "cls"),
    "vit_dynamic": ("vit_tiny_patch16_224", {"dynamic_img_size": True, "img_size": 64}, (48, 80), 1, "cls"),
    "vit_mean": ("vit_tiny_patch16_224", {"global_pool": "avg"}, (48, 80), 1, "mean"),
    "vit_mean_of_all": ("vit_tiny_patch16_224", {"global_pool": "avg", "pool_include_prefix": True}, (48, 80), 1, "mean_all"),
    "vit_qk_norm": ("vit_tiny_patch16_224", {"qk_norm": True}, (48, 80), 1, "cls"),
    "vit_parallel": ("vit_tiny_patch16_224", {"block_fn": ParallelScalingBlock}, (48, 80), 1, "cls"),
    "vit_relpos": ("vit_relpos_small_patch16_224", {"init_values": 0.5}, (48, 80), 0, "mean"),
    "deit": ("deit_tiny_patch16_224", {}, (48, 80), 1, "cls"),
    "deit_distilled": ("deit_tiny_distilled_patch16_224", {}, (48, 80), 2, "distilled"),
    "deit3": ("deit3_small_patch16_224", {"init_values": 0.5}, (48, 80), 1, "cls"),
    "dinov2": ("vit_small_patch14_dinov2", {"init_values": 0.5}, (42, 70), 1, "cls"),
    "dinov2_registers": ("vit_small_patch14_reg4_dinov2", {"init_values": 0.5}, (42, 70), 5, "cls"),
    "dinov3": ("vit_small_patch16_dinov3", {"init_values": 0.5}, (48, 80), 5, "mean"),
    "beit": ("beit_base_patch16_224", {"init_values": 0.5}, (48, 80), 1, "mean"),
    "beit_shared_bias": (
        "beit_base_patch16_224",
        {"init_values": 0.5, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True},
        (48, 80), 1, "mean",
    ),
    "eva02": ("eva02_tiny_patch14_336", {}, (42, 70), 1, "mean"),
    "eva02_separate_qkv": ("eva02_base_patch14_448", {}, (42, 70), 1, "mean"),
    "eva02_clip": ("eva02_base_patch16_clip_224", {}, (48, 80), 1, "cls"),
    "clip": ("vit_base_patch16_clip_224", {}, (48, 80), 1, "cls"),
    "clip_quickgelu": ("vit_base_patch16_clip_quickgelu_224", {}, (48, 80), 1, "cls"),
    "siglip": ("vit_base_patch16_siglip_224", {}, (48, 80), 0, "attention_pool"),
    "siglip_patch14": ("vit_so400m_patch14_siglip_224", {}, (42, 70), 0, "attention_pool"),
    "siglip_mean": ("vit_base_patch16_siglip_gap_224", {}, (48, 80), 0, "mean"),
    "perception_encoder": ("vit_pe_core_tiny_patch16_384", {}, (48, 80), 1, "attention_pool"),
}  # fmt: skip
UNSUPPORTED = {"swin": "swin_tiny_patch4_window7_224", "resnet": "resnet18", "windowed_vit": "samvit_base_patch16_224"}


def readout_of(layout):
    """The readout by its name above."""
    if layout.pooled:
        return "attention_pool"
    ((_, start, stop, share),) = layout.readout
    assert share == 1.0
    patches, everything = (layout.prefix, layout.tokens), (0, layout.tokens)
    return {everything: "mean_all", patches: "mean", (0, 1): "cls", (0, 2): "distilled"}[start, stop]


def build(family: str, seed: int = 0, **arguments: object) -> tuple[nn.Module, torch.Tensor]:
    """A small random model in eval mode, and three images for it (float32). Its weights are larger than at the usual
    start, so that attention is far from uniform and every path matters."""
    name, own, size, _, _ = FAMILIES[family]
    torch.manual_seed(seed)
    model = timm.create_model(name, pretrained=False, **(SMALL | {"img_size": size} | own | arguments)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2 or (parameter == 0).all():
                parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim >= 2 else 0.1))
    return model, torch.randn(3, 3, *size)
