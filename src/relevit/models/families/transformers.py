"""Hugging Face's transformers: `hf:OWNER/NAME`, folders of `save_pretrained`, and its image classifiers as modules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from relevit.errors import UserError
from relevit.models.families.family import (
    Branch,
    Family,
    TokenLayout,
    check_multiple,
    features_before,
    new_linear,
    of_another_kind,
    pair,
    refuse_words,
    write_record,
)
from relevit.models.families.image_processor import as_processor, as_view
from relevit.models.families.timm_models import line, offline_at_once
from relevit.models.families.zero_shot import from_transformers
from relevit.models.weights.preprocessing import PROCESSOR
from relevit.models.working import altered

_SIDE_BY_SIDE = ("Dinov2ForImageClassification", "Dinov2WithRegistersForImageClassification")
_CLASS_TOKEN = ("ViTForImageClassification", "DeiTForImageClassification", "ViTMSNForImageClassification")
_BOTH_TOKENS = ("DeiTForImageClassificationWithTeacher",)
_BY_POOLING = ("BeitForImageClassification", "Data2VecVisionForImageClassification")
_PATCHES = (
    "CLIPForImageClassification", "MetaClip2ForImageClassification", "SiglipForImageClassification", "IJepaForImageClassification",
)  # fmt: skip
_CLASSIFIERS = (*_SIDE_BY_SIDE, *_CLASS_TOKEN, *_BOTH_TOKENS, *_BY_POOLING, *_PATCHES)
_BACKBONES = (
    "ViTModel", "DeiTModel", "ViTMSNModel", "BeitModel", "Data2VecVisionModel", "Dinov2Model", "Dinov2WithRegistersModel",
    "DINOv3ViTModel", "IJepaModel", "CLIPVisionModel", "SiglipVisionModel",
)  # fmt: skip
_ZERO_SHOT = ("CLIPModel", "SiglipModel", "MetaClip2Model")
_NO_CLASS_TOKEN = ("Siglip", "IJepa")
_ANY_SIZE = ("Dinov2", "DINOv3ViT", "Beit", "Data2Vec")
_HOW = "from the code of its class in transformers"


class Transformers(Family):
    """Image classifiers of transformers whose blocks attend globally, and the backbones under them."""

    name = "hf"

    def owns(self, module: nn.Module) -> bool:
        return any(kind.__module__.startswith("transformers.") for kind in type(module).__mro__)

    def owns_folder(self, config: Mapping[str, Any]) -> bool:
        return "model_type" in config

    # ---- from and to the disk
    def load(self, source: str | Path, *, pretrained: bool = True, arguments: Mapping[str, Any]) -> nn.Module:
        """The class that the model's config names. num_classes=N: an image classifier with N classes, whose head is new where
        that is another number."""
        library = need_transformers()
        place = source.removeprefix("hf:") if isinstance(source, str) else str(source)
        try:
            with offline_at_once():
                config = library.AutoConfig.from_pretrained(place)
                named = (getattr(config, "architectures", None) or [""])[0]
                if named in _ZERO_SHOT and arguments.get("num_classes") is None:
                    tower = getattr(library, named).from_pretrained(place, dtype=torch.float32)
                    view = as_view(_processor(library, config, place), pair(config.vision_config.image_size))
                    return from_transformers(library, tower, place, dict(arguments), view)
                refuse_words(source, arguments)
                module = _built(library, config, place, pretrained, dict(arguments))
                module._relevit_processor = _processor(library, config, place)  # type: ignore[assignment]
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{source} could not be loaded by transformers ({line(error)}): give the name of a model on the hub that was "
                "downloaded before or can be now, or a folder of save_pretrained"
            ) from error
        return module

    def check_saves(self, module: nn.Module) -> None:
        if not hasattr(module, "save_pretrained"):
            raise UserError(f"{type(module).__name__} has no save_pretrained: give the model of transformers around it")

    def save(
        self, folder: Path, module: nn.Module, *, extra: Mapping[str, Any], data_config: Mapping[str, Any] | None
    ) -> None:
        self.check_saves(module)
        module.save_pretrained(folder, max_shard_size="1000GB")  # type: ignore[operator]
        given = getattr(module, "_relevit_processor", None) or {}
        processor = as_processor(data_config or self.data_config(module), given)
        (folder / PROCESSOR).write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
        write_record(folder, extra)

    def weights(self, module: nn.Module, folder: Path) -> dict[str, Tensor]:
        """By the class's own reading: the names in the file are not those in memory."""
        kind: Any = type(module)
        return kind.from_pretrained(folder, dtype=next(module.parameters()).dtype).state_dict()

    # ---- attention and tokens
    def unsupported_reason(self, module: nn.Module, *, readout: bool = True) -> str | None:
        names = [kind.__name__ for kind in type(module).__mro__]
        name = names[0]
        if any("Siglip2" in each for each in names):
            return (
                f"{name} takes patches of a grid that varies from image to image (NaFlex), not images: the SigLIP 2 checkpoints of "
                "a fixed resolution are of the class SiglipForImageClassification or SiglipModel"
            )
        if any(each in _CLASSIFIERS for each in names):
            if readout and not self.class_count(module):
                return f"{name} has no classifier (num_labels=0), so no class to explain: load it with num_classes=..."
            return None
        if any(each in _BACKBONES for each in names):
            if readout:
                return f"{name} has no classifier, so no class to explain: load it with num_classes=..., and train its head"
            return None
        return of_another_kind(module) or (
            f"{name} is none of the classes of transformers with global attention over image patches that are known here: these "
            f"are {', '.join(_CLASSIFIERS)}; another one with global attention can be given by relevit.wrap"
        )

    def blocks(self, module: nn.Module) -> list[nn.Module]:
        depth = _vision(module).num_hidden_layers
        lists = [part for part in module.modules() if isinstance(part, nn.ModuleList) and len(part) == depth]
        return list(lists[0])

    def attentions(self, module: nn.Module) -> list[nn.Module]:
        return [
            next(part for part in block.modules() if type(part).__name__.endswith("Attention"))
            for block in self.blocks(module)
        ]

    def patch_size(self, module: nn.Module) -> tuple[int, int]:
        return pair(_vision(module).patch_size)

    def grid(self, module: nn.Module, height: int, width: int) -> tuple[int, int]:
        patch, fixed = self.patch_size(module), pair(_vision(module).image_size)
        if not _any_size(module) and (height, width) != fixed:
            raise UserError(
                f"images are {height} x {width} pixels, but the model takes {fixed[0]} x {fixed[1]}: resize them"
            )
        check_multiple(patch, height, width)
        return height // patch[0], width // patch[1]

    def prefix(self, module: nn.Module) -> int:
        name = _name(module)
        if name.startswith(_NO_CLASS_TOKEN):
            return 0
        return (2 if name.startswith("DeiT") else 1) + int(getattr(_vision(module), "num_register_tokens", 0) or 0)

    def layout(self, module: nn.Module, height: int, width: int) -> TokenLayout:
        grid, prefix, name = self.grid(module, height, width), self.prefix(module), _name(module)
        patches = Branch("the patches", prefix, prefix + grid[0] * grid[1])
        first = Branch("the class token", 0, 1)
        if name in _SIDE_BY_SIDE:
            readout: tuple[Branch, ...] = (first._replace(share=0.5), patches._replace(share=0.5))
        elif name in _BOTH_TOKENS:
            readout = (Branch("the class and the distillation token", 0, 2),)
        elif name in _PATCHES or (name in _BY_POOLING and module.config.use_mean_pooling):  # type: ignore[union-attr]
            readout = (patches,)
        else:
            readout = (first,)
        return TokenLayout(grid, prefix, readout, found=_HOW)

    def channels(self, module: nn.Module) -> int | None:
        return getattr(_vision(module), "num_channels", None)

    @contextmanager
    def visible(self, module: nn.Module) -> Iterator[None]:
        """Attention by `scaled_dot_product_attention`, whatever the model was loaded with."""
        configs: dict[int, Any] = {id(part.config): part.config for part in module.modules() if hasattr(part, "config")}
        before = [(config, config._attn_implementation) for config in configs.values()]
        try:
            for config, _ in before:
                config._attn_implementation = "sdpa"
            yield
        finally:
            for config, kind in before:
                config._attn_implementation = kind

    @contextmanager
    def resized(self, module: nn.Module, height: int, width: int) -> Iterator[None]:
        """By the library's own `interpolate_pos_encoding`."""
        check_multiple(self.patch_size(module), height, width)

        def interpolated(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, {**kwargs, "interpolate_pos_encoding": True}

        with ExitStack() as undo:
            if not _name(module).startswith(("Dinov2", "DINOv3ViT")):
                handle = module.register_forward_pre_hook(interpolated, with_kwargs=True)
                undo.callback(handle.remove)
            undo.enter_context(altered(module, lambda: setattr(module, "_relevit_any_size", True)))
            yield

    def before_rotation(self, module: nn.Module, attention: nn.Module, kind: str) -> nn.Module | None:
        if not _name(module).startswith("DINOv3ViT"):
            return None
        return attention.k_proj if kind == "key" else attention.q_proj  # type: ignore[return-value]

    # ---- outputs
    def logits(self, output: Any) -> Any:
        if isinstance(output, tuple):
            return output[0]
        return getattr(output, "logits", output)

    def class_count(self, module: nn.Module) -> int | None:
        return int(module.config.num_labels) if _heads(module) else None  # type: ignore[union-attr, arg-type]

    def labels(self, module: nn.Module) -> dict[int, str]:
        names = (getattr(module.config, "id2label", None) or {}) if _heads(module) else {}
        numbered = {int(index): str(name) for index, name in names.items()}
        return {} if all(name == f"LABEL_{index}" for index, name in numbered.items()) else numbered

    def data_config(self, module: nn.Module) -> dict[str, Any]:
        """From the image processor beside the weights, or the library's own for this kind of model."""
        processor = getattr(module, "_relevit_processor", None) or _processor(need_transformers(), module.config, None)
        return as_view(
            processor, pair(_vision(module).image_size), any_size=_any_size(module) and "relevit" not in processor
        )

    def check_features(self, module: nn.Module) -> None:
        if self.unsupported_reason(module, readout=False) is not None:
            raise UserError(
                f"{type(module).__name__} does not tell its features: give a classifier with global attention"
            )

    def features(self, module: nn.Module, images: Tensor) -> Tensor:
        """What the classifier is applied to; of a DeiT with two, the mean of both; of a backbone, its pooled output."""
        heads = _heads(module)
        if heads:
            return features_before([head for _, head in heads], module, images)
        output = module(images)
        pooled = getattr(output, "pooler_output", None)
        return output.last_hidden_state.mean(dim=1) if pooled is None else pooled

    def replace_head(self, module: nn.Module, weight: Tensor, bias: Tensor, names: list[str]) -> None:
        heads = _heads(module)
        if not heads:
            raise UserError(f"{type(module).__name__} has no classifier to replace: load it with num_classes=...")
        for name, _ in heads:
            setattr(module, name, new_linear(weight, bias, like=module))
        config: Any = module.config
        config.id2label = dict(enumerate(names))
        config.label2id = {name: index for index, name in enumerate(names)}
        if hasattr(module, "num_labels"):
            module.num_labels = len(names)  # type: ignore[assignment]


def need_transformers() -> Any:
    """The library. Raises UserError with the line that installs it."""
    try:
        import transformers
    except ImportError as error:
        raise UserError("models of Hugging Face need the library transformers: pip install 'relevit[hf]'") from error
    return transformers


def _built(library: Any, config: Any, place: str, pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    classes = arguments.pop("num_classes", None)
    named = (getattr(config, "architectures", None) or [""])[0]
    kind = getattr(library, named, None)
    if classes is not None and not named.endswith(("ForImageClassification", "WithTeacher")):
        kind = library.AutoModelForImageClassification
    if kind is None:
        kind = library.AutoModelForImageClassification
    for name, value in arguments.items():
        if not hasattr(config, name):
            raise UserError(f"{place}: {type(config).__name__} has no setting {name!r}")
        setattr(config, name, value)
    fresh = classes is not None and classes != config.num_labels
    if fresh:
        config.num_labels = classes
    if not pretrained:
        return kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    return kind.from_pretrained(place, config=config, dtype=torch.float32, ignore_mismatched_sizes=fresh)


def _processor(library: Any, config: Any, place: str | None) -> dict[str, Any]:
    """The image processor's settings: those beside the weights, or the defaults for this kind of model."""
    if place is not None:
        try:
            return library.AutoImageProcessor.from_pretrained(place).to_dict()
        except (OSError, ValueError):
            pass
    names = library.models.auto.image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES
    kind = names.get(config.model_type) or names.get(getattr(config, "vision_config", config).model_type) or {}
    default = getattr(library, kind.get("pil", "ViTImageProcessorPil"))
    return {**default().to_dict(), "relevit": "the library's default, as none came with the weights"}


def _vision(module: nn.Module) -> Any:
    """The config of the image tower."""
    config: Any = module.config
    return getattr(config, "vision_config", config)


def _name(module: nn.Module) -> str:
    """The name of the class of transformers, also of one derived from it."""
    names = [kind.__name__ for kind in type(module).__mro__]
    return next((name for name in names if name in (*_CLASSIFIERS, *_BACKBONES)), names[0])


def _any_size(module: nn.Module) -> bool:
    return _name(module).startswith(_ANY_SIZE) or getattr(module, "_relevit_any_size", False)


def _heads(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    """The linear layers that give logits, by name."""
    names = ("classifier", "cls_classifier", "distillation_classifier")
    heads = [(name, getattr(module, name, None)) for name in names]
    return [(name, head) for name, head in heads if isinstance(head, nn.Linear)]
