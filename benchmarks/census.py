"""Which of timm's registered models relevance maps can be had of, and why not of the others: one line a reason, one a class.

    python benchmarks/census.py [--check] [--without PATTERN ...]

All names are built without memory. --check also builds one small image's pass of one model of each class that is supported, and
compares its logits with those of the plain model, in single precision.
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections import Counter, defaultdict

import timm
import torch
from torch import nn

from relevit.models.attention import capture, token_layout, unsupported_reason
from relevit.models.families import of_module


def has_attention(model: nn.Module) -> bool:
    """Whether a part of the model is called an attention."""
    return any(re.search("attention|attn", type(part).__name__, re.IGNORECASE) for part in model.modules())


def verdict(name: str) -> tuple[str, str, bool]:
    """The class of a model, and why maps cannot be had of it (empty where they can), and whether it has attention at all."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = timm.create_model(name, pretrained=False)
            if not getattr(model, "num_classes", 1):
                model = timm.create_model(name, pretrained=False, num_classes=7)
        except Exception as error:
            return "?", f"cannot be built: {str(error).splitlines()[0]}", True
    reason = unsupported_reason(model)
    if reason is None:
        try:
            token_layout(model, *of_module(model).data_config(model)["input_size"][1:])
        except Exception as error:
            reason = f"no layout: {error}"
    return type(model).__name__, (reason or "").split("; supported")[0], has_attention(model)


def difference(name: str) -> float:
    """The largest relative difference of the logits with attention taken and without, of one pass with noise."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=7).eval()
    images = torch.randn(1, *of_module(model).data_config(model)["input_size"])
    with torch.no_grad():
        plain = model(images)
        with capture(model) as captured:
            taken = model(images)
    layout = token_layout(model, *images.shape[-2:])
    assert len(captured.maps) == of_module(model).map_count(model) and captured.maps[0].shape[-1] == layout.tokens, name
    return float((taken - plain).abs().max() / plain.abs().max())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--without", nargs="*", default=[], metavar="PATTERN", help="names that are left out")
    options = parser.parse_args()
    right: dict[str, list[str]] = defaultdict(list)
    refused: Counter[str] = Counter()
    examples: dict[str, str] = {}
    without = 0
    for name in timm.list_models(exclude_filters=options.without):
        kind, reason, attention = verdict(name)
        if not attention:
            without += 1
        elif reason:
            key = f"{kind}: {reason}"
            refused[key] += 1
            examples.setdefault(key, name)
        else:
            right[kind].append(name)
    total = sum(map(len, right.values()))
    print(f"timm {timm.__version__}: {total} supported, {sum(refused.values())} refused, {without} without attention")
    for kind, names in sorted(right.items()):
        smallest = min(
            names, key=lambda name: (("tiny" not in name) + ("small" not in name), "384" in name, len(name), name)
        )
        checked = f", logits of {smallest} to {difference(smallest):.1e}" if options.check else f", such as {smallest}"
        print(f"  {len(names):4} {kind}{checked}")
    for key, count in refused.most_common():
        print(f"  {count:4} refused, {key} ({examples[key]})")


if __name__ == "__main__":
    main()
