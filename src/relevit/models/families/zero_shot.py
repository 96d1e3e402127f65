"""CLIP and SigLIP as classifiers without training: `open_clip:ARCHITECTURE/PRETRAINED`, `hf:` names and folders of CLIPModel, SiglipModel.

A class is the mean of its sentences' text features; logits = exp(logit_scale) * cosine(image features, class) (+ logit_bias).
The text tower makes the classes once; the image tower is what is explained and fine-tuned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from relevit.errors import UserError
from relevit.models.checkpoints import CONFIG, WEIGHTS, fill, read_weights
from relevit.models.families.family import RECORD, Branch, Family, TokenLayout, pair, write_own, write_record
from relevit.models.families.timm import Timm
from relevit.models.families.timm_models import line
from relevit.models.weights.classes import read_class_names
from relevit.models.weights.options import WORDS
from relevit.versions import RELEVIT

HEAD = "head.safetensors"
PLAIN = ("a photo of a {}.",)
_TOWER = "tower."


class ZeroShot(nn.Module):
    """A model of image and text whose logits are those of classes described in words.

    tokenizer: that of transformers which came with the model, to be saved along."""

    tokenizer: Any = None

    def __init__(self, tower: nn.Module, head: Tensor, class_names: Sequence[str], about: Mapping[str, Any]) -> None:
        super().__init__()
        self.tower, self.class_names, self.about = tower, list(class_names), dict(about)
        self.register_buffer("head", head)
        parts = [image_tower(tower), getattr(tower, "visual_projection", None)]
        seeing = {id(p) for part in parts if isinstance(part, nn.Module) for p in part.parameters()}
        for parameter in tower.parameters():
            if id(parameter) not in seeing:
                parameter.requires_grad_(False)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch classes"]:
        """exp(logit_scale) * cosine (+ logit_bias)."""
        tower: Any = self.tower
        features = self.features(images)
        cosine = features @ self.head.T.to(features.dtype)  # type: ignore[operator, union-attr]
        bias = getattr(tower, "logit_bias", None)
        logits = tower.logit_scale.exp() * cosine
        return logits if bias is None else logits + bias

    def features(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """The image features of length 1, which are compared with the classes."""
        tower: Any = self.tower
        whole = hasattr(tower, "encode_image")
        own = tower.encode_image(images) if whole else pooled(tower.get_image_features(pixel_values=images))
        return F.normalize(own, dim=-1)


def pooled(output: Any) -> Tensor:
    """The features in what transformers returns."""
    return output if isinstance(output, Tensor) else output.pooler_output


def image_tower(tower: Any) -> nn.Module:
    """The part that sees images."""
    return tower.visual if hasattr(tower, "visual") else tower.vision_model


def class_head(
    encode: Callable[[list[str]], Tensor], class_names: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, "classes dim"]:
    """Of each class the mean of the normalised features of its sentences, of length 1 again."""
    rows = []
    with torch.no_grad():
        for name in class_names:
            features = F.normalize(encode([template.replace("{}", name) for template in templates]), dim=-1)
            rows.append(F.normalize(features.mean(dim=0), dim=0))
    return torch.stack(rows)


class NoClassesError(UserError):
    """A model of images and texts was asked for without classes."""


def read_words(given: Any, what: str) -> list[str]:
    """Lines of a file, or the words themselves; class names also of JSON or of a folder of class folders.

    Raises UserError for none, and for templates without {}.
    """
    if isinstance(given, str | Path) and what == "class names" and Path(given).exists():
        given = read_class_names(Path(given))
    elif isinstance(given, str | Path):
        path = Path(given)
        if not path.is_file():
            raise UserError(f"there is no file {path} of {what}: one a line")
        given = path.read_text(encoding="utf-8").splitlines()
    words = [str(word).strip() for word in given if str(word).strip()]
    if not words:
        raise UserError(f"there are no {what}: give one a line")
    odd = next((word for word in words if what == "templates" and "{}" not in word), None)
    if odd is not None:
        raise UserError(f"the template {odd!r} has no {{}}, where the class goes")
    return words


def asked(
    arguments: dict[str, Any], source: object, default: Sequence[str], kept: Sequence[str] | None = None
) -> tuple[list[str], list[str]]:
    """Class names and templates of the arguments of `load`, which they leave; `kept` are the classes of a saved model.

    Raises UserError where there are no classes.
    """
    names, templates = arguments.pop("class_names", None), arguments.pop("templates", None)
    names = kept if names is None else names
    arguments.pop("num_classes", None)
    if arguments:
        raise UserError(f"{source} takes no {', '.join(arguments)}")
    if names is None:
        raise NoClassesError(
            f"{source} is a model of images and texts, which has no classes of its own: give --class-names FILE (in Python class_names=FILE), "
            "one a line"
        )
    words = PLAIN if templates == "plain" else default if templates is None else read_words(templates, "templates")
    return read_words(names, "class names"), list(words)


class ZeroShotModels(Family):
    """Zero-shot classifiers of open_clip and transformers."""

    name = "open_clip"

    def __init__(self, transformers: Family) -> None:
        self.transformers = transformers

    def _seen(self, module: Any) -> tuple[Any, Family | None]:
        """The image tower, and the family that knows its anatomy; None for open_clip's own."""
        tower = module.tower
        if not hasattr(tower, "visual"):
            return tower.vision_model, self.transformers
        return (tower.visual.trunk, Timm()) if hasattr(tower.visual, "trunk") else (tower.visual, None)

    def owns(self, module: nn.Module) -> bool:
        return isinstance(module, ZeroShot)

    def owns_folder(self, config: Mapping[str, Any]) -> bool:
        return "open_clip" in config

    # ---- from and to the disk
    def load(self, source: str | Path, *, pretrained: bool = True, arguments: Mapping[str, Any]) -> nn.Module:
        """ARCHITECTURE, or ARCHITECTURE/PRETRAINED."""
        library = _open_clip()
        if isinstance(source, Path):
            config = json.loads((source / CONFIG).read_text(encoding="utf-8"))
            tower = library.create_model(config["open_clip"], pretrained=None)
            fill(tower, read_weights(source / WEIGHTS), source)
            if not _reworded(arguments):
                return ZeroShot(tower, read_weights(source / HEAD)["head"], config["labels"], config["about"])
            return self._in_words(tower, config["open_clip"], source, arguments, config["labels"], config["about"])
        architecture, _, tag = source.removeprefix("open_clip:").partition("/")
        if architecture not in library.list_models():
            raise UserError(f"open_clip has no architecture {architecture!r}: see open_clip.list_models()")
        known = library.list_pretrained_tags_by_model(architecture)
        if pretrained and (tag not in known):
            raise UserError(f"open_clip:{architecture}/{tag}: choose weights of {', '.join(known) or 'none'}")
        asked(dict(arguments), source, PLAIN)  # before long work
        try:
            tower = library.create_model(architecture, pretrained=tag if pretrained else None)
        except Exception as error:
            raise UserError(f"open_clip could not load {source}: {line(error)}") from error
        return self._in_words(tower, architecture, source, arguments)

    def _in_words(
        self,
        tower: Any,
        architecture: str,
        source: object,
        arguments: Mapping[str, Any],
        kept: Sequence[str] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> ZeroShot:
        """The tower with the classes of the arguments, by the sentences of the arguments."""
        library = _open_clip()
        names, templates = asked(dict(arguments), source, _default_templates(), kept)
        try:
            tokenizer = library.get_tokenizer(architecture)
        except Exception as error:
            raise UserError(f"open_clip could not load the tokenizer of {architecture}: {line(error)}") from error
        tower.eval()
        head = class_head(lambda texts: tower.encode_text(tokenizer(texts)), names, templates)
        return ZeroShot(tower, head, names, {**(about or {}), "open_clip": architecture, "templates": templates})

    def check_saves(self, module: Any) -> None:
        if "open_clip" not in module.about and not hasattr(module.tower, "save_pretrained"):
            raise UserError("this zero-shot model was not built by relevit.load, so its architecture is not known")

    def save(
        self, folder: Path, module: Any, *, extra: Mapping[str, Any], data_config: Mapping[str, Any] | None
    ) -> None:
        """The tower in its library's form, and beside it the classes."""
        self.check_saves(module)
        safetensors.torch.save_file({"head": module.head.detach().cpu().contiguous()}, folder / HEAD)
        about = {
            "labels": module.class_names,
            "about": {**module.about, "view": dict(data_config or self.data_config(module))},
        }
        if hasattr(module.tower, "save_pretrained"):
            module.tower.save_pretrained(folder, max_shard_size="1000GB")
            if module.tokenizer is not None:
                module.tokenizer.save_pretrained(folder)
            write_record(folder, {**about, **extra})
            return
        config = {"open_clip": module.about["open_clip"], **about, "relevit": {"version": RELEVIT, **extra}}
        write_own(folder, module.tower, config)

    def weights(self, module: Any, folder: Path) -> dict[str, Tensor]:
        if hasattr(module.tower, "save_pretrained"):
            own = type(module.tower).from_pretrained(folder, dtype=next(module.parameters()).dtype).state_dict()
        else:
            own = read_weights(folder / WEIGHTS)
        return {"head": read_weights(folder / HEAD)["head"], **{_TOWER + name: value for name, value in own.items()}}

    # ---- attention and tokens
    def unsupported_reason(self, module: Any, *, readout: bool = True) -> str | None:
        part, family = self._seen(module)
        if family is not None:
            return family.unsupported_reason(part, readout=False)
        if not hasattr(part, "class_embedding") or not hasattr(part, "transformer"):
            return f"the image tower {type(part).__name__} has no global attention maps over image patches"
        if getattr(part, "attn_pool", None) is not None or part.pool_type not in ("tok", "avg"):
            return f"the image tower {type(part).__name__} pools its tokens in a way for which no readout is defined"
        return None

    def attentions(self, module: Any) -> list[nn.Module]:
        part, family = self._seen(module)
        if family is None:
            blocks: list[Any] = self.blocks(module)
            return [block.attn for block in blocks]
        pool: Any = getattr(part, "head", None)
        own = family.attentions(part)
        return [*own, pool.attention] if isinstance(getattr(pool, "attention", None), nn.Module) else own

    def blocks(self, module: Any) -> list[nn.Module]:
        part, family = self._seen(module)
        return list(part.transformer.resblocks) if family is None else family.blocks(part)

    def patch_size(self, module: Any) -> tuple[int, int]:
        part, family = self._seen(module)
        return pair(part.patch_size) if family is None else family.patch_size(part)

    def grid(self, module: Any, height: int, width: int) -> tuple[int, int]:
        part, family = self._seen(module)
        if family is not None:
            return family.grid(part, height, width)
        size = pair(part.image_size)
        if (height, width) != size:
            raise UserError(
                f"images are {height} x {width} pixels, but the model takes {size[0]} x {size[1]}: resize them"
            )
        return pair(part.grid_size)

    def prefix(self, module: Any) -> int:
        part, family = self._seen(module)
        return 1 if family is None else family.prefix(part)

    def layout(self, module: Any, height: int, width: int) -> TokenLayout:
        part, family = self._seen(module)
        if family is None:
            grid = self.grid(module, height, width)
            first = part.pool_type == "tok"
            branch = Branch("the class token", 0, 1) if first else Branch("the patches", 1, 1 + grid[0] * grid[1])
            return TokenLayout(grid, 1, (branch,))
        if isinstance(getattr(getattr(part, "head", None), "attention", None), nn.Module):
            latents = Branch("the latents of the pooling attention", 0, 1)
            return TokenLayout(family.grid(part, height, width), family.prefix(part), (latents,), pooled=True)
        return family.layout(part, height, width)

    def channels(self, module: Any) -> int | None:
        return 3

    def visible(self, module: Any) -> AbstractContextManager[None]:
        part, family = self._seen(module)
        return super().visible(module) if family is None else family.visible(part)

    # ---- outputs
    def class_count(self, module: Any) -> int | None:
        return len(module.head)

    def labels(self, module: Any) -> dict[int, str]:
        return dict(enumerate(module.class_names))

    def architecture(self, module: Any) -> str:
        return str(module.about.get("open_clip") or type(module.tower).__name__)

    def data_config(self, module: Any) -> dict[str, Any]:
        """open_clip's own preprocessing of the tower, or that of the image processor beside the weights."""
        kept = module.about.get("view")
        if kept is not None:
            return {
                **kept,
                "input_size": tuple(kept["input_size"]),
                "mean": tuple(kept["mean"]),
                "std": tuple(kept["std"]),
            }
        part, _ = self._seen(module)
        given = module.tower.visual.preprocess_cfg
        height, width = pair(given["size"]) if given.get("size") else pair(part.image_size)
        mode = {"shortest": "center", "squash": "squash", "longest": "border"}[given.get("resize_mode") or "shortest"]
        return {
            "input_size": (3, height, width), "mean": tuple(given["mean"]), "std": tuple(given["std"]),
            "interpolation": given.get("interpolation") or "bicubic", "crop_pct": 1.0, "crop_mode": mode,
        }  # fmt: skip

    def check_features(self, module: nn.Module) -> None:
        pass

    def features(self, module: Any, images: Tensor) -> Tensor:
        return module.features(images)

    def replace_head(self, module: nn.Module, weight: Tensor, bias: Tensor, names: list[str]) -> None:
        raise UserError("the head of a zero-shot classifier is its sentences: give other class names or templates")


def _open_clip() -> Any:
    """The library. Raises UserError with the line that installs it."""
    try:
        import open_clip
    except ImportError as error:
        raise UserError("models of open_clip need the library open_clip_torch: pip install 'relevit[clip]'") from error
    return open_clip


def from_transformers(
    library: Any, tower: Any, place: str, arguments: dict[str, Any], view: dict[str, Any]
) -> ZeroShot:
    """CLIPModel or SiglipModel with the classes of the arguments, or those that `save` left beside it."""
    kept = Path(place) / RECORD
    record = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    tokenizer = _tokenizer(library, place, needed=not record or _reworded(arguments))
    if record and not _reworded(arguments):
        model = ZeroShot(tower.eval(), read_weights(Path(place) / HEAD)["head"], record["labels"], record["about"])
        model.tokenizer = tokenizer
        return model
    names, templates = asked(arguments, place, _default_templates(), record.get("labels"))
    length = tower.config.text_config.max_position_embeddings
    tower.eval()

    def encode(texts: list[str]) -> Tensor:
        tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        wanted = {key: value for key, value in tokens.items() if key in ("input_ids", "attention_mask")}
        if "Siglip" in type(tower).__name__:  # trained on padded texts, without a mask
            wanted.pop("attention_mask", None)
        return pooled(tower.get_text_features(**wanted))

    model = ZeroShot(tower, class_head(encode, names, templates), names, {"templates": templates, "view": view})
    model.tokenizer = tokenizer
    return model


def _reworded(arguments: Mapping[str, Any]) -> bool:
    """Whether the classes of a saved model are to be others, or described by other sentences."""
    return any(arguments.get(name) is not None for name in WORDS)


def _default_templates() -> list[str]:
    """open_clip's for ImageNet; one plain sentence without that library."""
    try:
        return [template("{}") for template in _open_clip().OPENAI_IMAGENET_TEMPLATES]
    except UserError:
        return list(PLAIN)


def _tokenizer(library: Any, place: str, needed: bool) -> Any:
    """The tokenizer beside a model; None where there is none and none is needed. Raises UserError."""
    try:
        return library.AutoTokenizer.from_pretrained(place)
    except Exception as error:
        if needed:
            raise UserError(
                f"{place} has no tokenizer that transformers can load ({line(error)}), so its classes cannot be put into words: "
                "put the tokenizer's files of the original model into the folder"
            ) from error
    return None
