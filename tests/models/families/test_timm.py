"""timm's hybrids and NaFlex models: attention taken and not, and the tokens that the logits read."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

import relevit
from foreign_models import roughened
from relevit.masking.features import accept_size, patch_features
from relevit.models import families
from relevit.models.attention import capture, patch_size, token_layout, unsupported_reason

SMALL: dict[str, Any] = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 7}
MODELS = {
    "vit_tiny_r_s16_p8_224": (SMALL, 64, (2, 2), (32, 32)),
    "vit_small_resnet26d_224": (SMALL, 64, (2, 2), (32, 32)),
    "naflexvit_base_patch16_gap": (SMALL, 48, (3, 3), (16, 16)),
    "naflexvit_base_patch16_map": (SMALL, 48, (3, 3), (16, 16)),
    "naflexvit_base_patch16_par_gap": (SMALL, 48, (3, 3), (16, 16)),
}


@pytest.mark.parametrize("name", MODELS)
def test_hybrids_and_naflex(name: str) -> None:
    arguments, size, grid, patch = MODELS[name]
    torch.manual_seed(0)
    sized = {} if "naflex" in name else {"img_size": size}
    model: Any = roughened(timm.create_model(name, pretrained=False, **arguments, **sized)).double()
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    assert unsupported_reason(model) is None and patch_size(model) == patch
    layout, seen = token_layout(model, size, size), []
    assert layout.grid == grid
    plain = model(images)
    with capture(model) as captured:
        torch.testing.assert_close(model(images), plain, rtol=1e-9, atol=1e-9)
    assert [one.shape[-1] for one in captured.maps[:2]] == [layout.tokens] * 2
    hook = model.blocks[-1].register_forward_hook(lambda _, args, out: seen.append(out))
    (gradient,) = torch.autograd.grad(model(images).square().sum(), seen)
    hook.remove()
    if not layout.pooled:
        read = layout.weigh(torch.zeros(1, layout.tokens))[0] > 0
        assert ((gradient.abs().amax(dim=(0, 2)) > 0) == read).all()
    maps = relevit.relevance(model, images)
    assert maps.shape == (2, size, size) and maps.isfinite().all() and maps.max() == 1
    with accept_size(model, 2 * patch[0], 3 * patch[1]):
        assert patch_features(model, torch.randn(1, 3, 2 * patch[0], 3 * patch[1]).double())[1] == (2, 3)
    assert families.class_count(model) == 7


def test_why_others_are_refused() -> None:
    for name, reason in {"swin_tiny_patch4_window7_224": "windows", "resnet18": "no attention"}.items():
        with torch.device("meta"):
            assert reason in str(unsupported_reason(timm.create_model(name)))
