"""Checkpoints as training loops write them, each by the library's own code where there is such a library.

`FORMS`: what writes a form of a model's weights into a folder, returning the file or folder to give.
"""

from __future__ import annotations

import argparse
import collections
import datetime
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import accelerate
import huggingface_hub
import numpy as np
import safetensors.torch
import timm
import timm.utils
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

ARCHITECTURE = "vit_tiny_patch16_224"
TINY = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}
CLASSES = 7
Write = Callable[[Path, nn.Module], Path]


def build(seed: int = 0, **arguments: Any) -> nn.Module:
    """A tiny model with random weights everywhere."""
    torch.manual_seed(seed)
    model = timm.create_model(ARCHITECTURE, **{**TINY, "num_classes": CLASSES, **arguments}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model


def pictures() -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def renamed(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


def save(folder: Path, content: Any, name: str = "w.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def clip(model: nn.Module, openai: bool) -> dict[str, Tensor]:
    """The model's weights by CLIP's names, as open_clip and OpenAI write them, with a stub of the text tower."""
    names = {
        "patch_embed.proj": "conv1", "pos_embed": "positional_embedding", "blocks.": "transformer.resblocks.", "norm_pre": "ln_pre",
        "attn.qkv.": "attn.in_proj_", "attn.proj": "attn.out_proj", "norm1": "ln_1", "norm2": "ln_2", "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }  # fmt: skip
    found = {"logit_scale": torch.tensor(4.6), "transformer.resblocks.0.ln_1.weight": torch.ones(8)}
    found |= {"input_resolution": torch.tensor(32), "vocab_size": torch.tensor(9)} if openai else {}
    for name, value in model.state_dict().items():
        if name == "head.weight":
            found["visual.proj"] = value.T.contiguous()
        elif name == "cls_token":
            found["visual.class_embedding"] = value[0, 0]
        elif name != "head.bias":
            new = name if not name.startswith("norm.") else name.replace("norm.", "ln_post.")
            for old, theirs in names.items():
                new = new.replace(old, theirs)
            found[f"visual.{new}"] = value[0] if name == "pos_embed" else value
    return found


def other(model: nn.Module) -> nn.Module:
    """A model of the same shapes with other weights."""
    again = build(1, global_pool=model.global_pool)
    return again


def saved(content: Callable[[nn.Module], Any], name: str = "w.pth", **options: Any) -> Write:
    """What saves a content made of the model by `torch.save`."""

    def write(folder: Path, model: nn.Module) -> Path:
        torch.save(content(model), folder / name, **options)
        return folder / name

    return write


def optimiser(model: nn.Module) -> dict[str, Any]:
    """The state of an optimiser after a step."""
    adam = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
    model(pictures()).sum().backward()
    adam.step()
    model.zero_grad()
    return adam.state_dict()


def lightning(model: nn.Module) -> dict[str, Any]:
    """The layout of Lightning's .ckpt, of a module with the model, a loss and a metric."""
    weights = {**renamed(model.state_dict(), "model."), "criterion.weight": torch.ones(CLASSES)}
    return {
        "epoch": 3,
        "global_step": 40,
        "pytorch-lightning_version": "2.5.1",
        "state_dict": collections.OrderedDict(weights),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [optimiser(model)],
        "lr_schedulers": [{"base_lrs": [0.1], "_step_count": 3}],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "root": Path("data"), "when": datetime.timedelta(hours=1)},
    }


def facebook(model: nn.Module) -> dict[str, Any]:
    """What DeiT's and MAE's scripts write."""
    options = argparse.Namespace(model=ARCHITECTURE, input_size=32, data_path=Path("imagenet"), drop_path=0.1)
    state = {"model": model.state_dict(), "optimizer": optimiser(model), "epoch": 99, "scaler": {"scale": 65536.0}}
    return {**state, "args": options, "max_accuracy": np.float64(81.5)}


def by_timm(folder: Path, model: nn.Module) -> Path:
    """timm's train.py: a CheckpointSaver with options and an average of the weights, which is the model asked for here."""
    options = argparse.Namespace(model=ARCHITECTURE, img_size=None, mean=None, crop_pct=0.9, interpolation="bilinear")
    raw, adam = other(model), torch.optim.SGD(model.parameters(), lr=0.1)
    average = timm.utils.ModelEmaV3(model, decay=0.9)
    saver = timm.utils.CheckpointSaver(
        raw, adam, args=options, model_ema=average, checkpoint_dir=str(folder), recovery_dir=str(folder)
    )
    saver.save_checkpoint(7, metric=np.float32(80.0))
    return folder / "model_best.pth.tar"


def by_accelerate(folder: Path, model: nn.Module, **options: Any) -> Path:
    accelerator = accelerate.Accelerator(cpu=True)
    prepared, _ = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    if options:
        accelerator.save_model(prepared, str(folder / "saved"), **options)
        return folder / "saved"
    accelerator.save_state(str(folder / "state"))
    return folder / "state"


def by_trainer(folder: Path, model: nn.Module) -> Path:
    """A Trainer's folder, options beside the weights as it pickles them."""
    from transformers import Trainer, TrainingArguments

    options = TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none")
    Trainer(model=model, args=options).save_model(str(folder / "checkpoint-500"))
    assert (folder / "checkpoint-500" / "training_args.bin").exists()
    return folder / "checkpoint-500"


def by_transformers(folder: Path, model: nn.Module) -> Path:
    """A timm model inside transformers, saved by save_pretrained."""
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    config = TimmWrapperConfig(architecture=ARCHITECTURE, model_args=TINY, num_labels=CLASSES)
    wrapped = TimmWrapperForImageClassification(config)
    wrapped.timm_model.load_state_dict(model.state_dict())
    wrapped.save_pretrained(folder / "wrapped")
    return folder / "wrapped"


def in_shards(folder: Path, model: nn.Module) -> Path:
    (folder / "hub").mkdir()
    huggingface_hub.save_torch_state_dict(model.state_dict(), folder / "hub", max_shard_size=30_000)
    assert len(list((folder / "hub").glob("*.safetensors"))) > 2
    return folder / "hub" / "model.safetensors.index.json"


def safetensors_file(folder: Path, model: nn.Module, kind: torch.dtype = torch.float32) -> Path:
    safetensors.torch.save_file(
        {name: value.to(kind) for name, value in model.state_dict().items()}, folder / "w.safetensors"
    )
    return folder / "w.safetensors"


def apart(model: nn.Module) -> dict[str, Tensor]:
    """A backbone without a head, and a linear layer of the training loop's own beside it."""
    weights = model.state_dict()
    head = {
        name.replace("head.", "classifier.1."): value for name, value in weights.items() if name.startswith("head.")
    }
    return {**renamed({name: weights[name] for name in weights if not name.startswith("head.")}, "encoder."), **head}


FORMS: dict[str, Write] = {
    "bare": saved(lambda model: model.state_dict()),
    **{
        key: saved(lambda model, key=key: {key: model.state_dict(), "epoch": 3})
        for key in ("model", "state_dict", "model_state_dict", "net", "module", "weights", "anything")
    },
    "student and teacher": saved(lambda model: {"student": other(model).state_dict(), "teacher": model.state_dict()}),
    "nested": saved(lambda model: {"run": {"checkpoint": {"model": model.state_dict()}}, "step": 1}),
    **{
        f"prefix {prefix}": saved(lambda model, prefix=prefix: {"state_dict": renamed(model.state_dict(), prefix)})
        for prefix in (
            "module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.", "module._orig_mod.", "_orig_mod.module.",
            "model.backbone.", "module.encoder.", "model._orig_mod.net.", "my_own.vit.",
        )
    },
    "DataParallel": saved(lambda model: nn.DataParallel(model).state_dict()),
    "average by torch": saved(lambda model: {"net": AveragedModel(model).state_dict()}),
    "head beside the backbone": saved(apart),
    "head in a sequence": saved(
        lambda model: {name.replace("head.", "head.1."): value for name, value in model.state_dict().items()}
    ),
    "Lightning": saved(lightning, "last.ckpt"),
    "timm's train.py": by_timm,
    "DeiT, MAE": saved(facebook),
    "DeiT with an average": saved(
        lambda model: {**facebook(other(model)), "model_ema": model.state_dict(), "lr_scheduler": {"last_epoch": 3}}
    ),
    "accelerate's state": by_accelerate,
    "accelerate's model": lambda folder, model: by_accelerate(folder, model, safe_serialization=True),
    "accelerate's model, shards": lambda folder, model: by_accelerate(folder, model, max_shard_size=30_000),
    "Trainer": by_trainer,
    "transformers' TimmWrapper": by_transformers,
    "safetensors": safetensors_file,
    "safetensors in shards": in_shards,
    "before zip files": saved(lambda model: {"model": model.state_dict()}, _use_new_zipfile_serialization=False),
    "parameters": saved(lambda model: dict(model.named_parameters())),
    "old numpy and other types": saved(
        lambda model: {
            "model": model.state_dict(),
            "best": np.float32(0.5),
            "rng": np.random.RandomState(0).get_state(),
            "when": datetime.datetime(2026, 1, 2),
            "opt": SimpleNamespace(lr=0.1),
            "history": collections.defaultdict(list, loss=[1.0]),
            "last": collections.deque([1, 2], maxlen=3),
        }
    ),
}  # fmt: skip
