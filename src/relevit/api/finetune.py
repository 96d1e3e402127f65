"""`relevit finetune`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from relevit import terminal
from relevit.api import types
from relevit.api.types import public

if TYPE_CHECKING:
    from relevit.training.loop import FinetuneResult


@public
def finetune(
    model: Annotated[types.Model, types.Shown(option="model")],
    samples: types.Samples,
    out: Annotated[types.Run | None, types.Shown(option="out")],
    *,
    masks: types.Folder | None = None,
    validation: types.Validation = None,
    validation_masks: types.Folder | None = None,
    ignore: types.Folder | None = None,
    manifest: types.File | None = None,
    method: types.Name = "relevance",
    explainer: types.Name = "gae",
    trainable: str = "all",
    target: Literal["label", "predicted"] = "label",
    class_map: types.ClassMap | None = None,
    skip_bad: bool = False,
    epochs: types.Count = 50,
    batch_size: types.Count = 8,
    lr: float | Literal["auto"] = 3e-6,
    rates: list[types.Positive] | None = None,
    weight_decay: types.Positive = 1e-4,
    lr_decay: types.Positive = 0.85,
    lr_decay_epochs: types.Count = 2,
    max_steps: types.Count | None = None,
    temperature: float = 1.0,
    lambda_bg: float = 2.0,
    lambda_fg: float = 0.3,
    lambda_relevance: float | None = None,
    lambda_classification: float | None = None,
    options: types.Options = None,
    second_order: bool = False,
    accumulation: types.Count = 1,
    max_grad_norm: types.Positive | None = None,
    precision: types.Precision = "float32",
    gradient_checkpointing: bool = False,
    compile: bool = False,
    resize: float = 256 / 224,
    flip: types.Share = 0.5,
    protocol: types.Protocol = "standard",
    checkpoint: types.Output | None = None,
    num_classes: types.Count | None = None,
    model_args: types.Options = None,
    seed: types.Index = 0,
    validation_every: types.Count = 1,
    validation_batch_size: types.Count | None = None,
    previews: types.Index = 4,
    workers: types.Index = 0,
    track: types.Names = ("tensorboard",),
    progress: bool = True,
    checkpoint_seconds: types.Positive = 30.0,
) -> FinetuneResult:
    """Fine-tune a ViT by its relevance maps (or another method) on your own images and masks.

    Images lie in class folders, DIR/<class>/<name>.jpg; masks under the same relative names as PNG, 255 on the object. Everything is
    checked before training starts. Stopped at any moment, the same command goes on where it was.

    Args:
        samples: the folder of class folders with images; in Python also a data set of (image, mask, label[, ignore[, name]]).
        out: the folder of the run; in Python None writes nothing, and nothing can be resumed.
        masks: the folder of masks; by default the alpha channel of the images.
        validation: a folder of class folders for choosing the best epoch; by default classes held out of the images. In Python also a data set, or a fraction or number of classes to hold out; of a data set of samples nothing is held out by default, and its last epoch counts as the best.
        validation_masks: the folder of masks of the validation images; by default their alpha channel.
        ignore: a folder as that of the masks, white where pixels are neither object nor background; for images that have such a region.
        manifest: a CSV file that names the images for training and for validation (relevit split; a run's split.csv); no others are used.
        method: what is minimised; relevance is the paper's, control plain cross-entropy; relevance_label_free, relevance_share, consistency and distillation need no labels; with_labels, without_background and so on are the paper's ablations; gradmask and rrr its baselines.
        explainer: whose maps are trained; gae is the paper's.
        trainable: the weights that move: all, attention, last:K (the last K blocks), or lora:R (low-rank adapters of rank R on the attention's projections, merged into the checkpoints).
        target: the class whose map is used, the label or (label-free) the predicted class.
        skip_bad: goes on without the images and masks that are found to be faulty.
        epochs: passes over the samples.
        batch_size: samples in a step, of each process.
        lr: learning rate of AdamW; auto makes a run for each rate of a grid and keeps the one that the paper's rule chooses on the validation samples.
        rates: the grid of --lr auto, such as '[1e-6, 2e-6]'; by default one for the model's size.
        weight_decay: weight decay of AdamW.
        lr_decay: the factor on the learning rate every lr_decay_epochs epochs.
        lr_decay_epochs: epochs between two decays of the learning rate.
        max_steps: stops after so many optimiser steps.
        temperature: divides the logits in the classification term.
        lambda_bg: weight of the background term (Eq. 3).
        lambda_fg: weight of the foreground term (Eq. 3).
        lambda_relevance: weight of the relevance terms (Eq. 5); by default the method's own.
        lambda_classification: weight of the classification term (Eq. 5); by default the method's own.
        options: further numbers of the method, such as '{swap_probability: 0.5}'.
        second_order: lets gradients pass through the attention's gradients, too; slower.
        accumulation: batches whose gradients make one step.
        max_grad_norm: scales the gradients of a step down to this norm where they have a larger one.
        precision: number format of the forward pass; weights and loss stay as they are.
        gradient_checkpointing: computes each block again in the backward passes, in place of keeping what it computed: the same weights, with less memory and more time.
        compile: runs the model as compiled by torch.compile; for methods of logits alone, such as control.
        resize: size of the training view before the random crop, as a factor on the model's input size.
        flip: probability of a horizontal flip.
        num_classes: number of classes; another one than the model's gives a new, untrained head.
        seed: of the order of samples, their views and the split.
        validation_every: epochs between two validations.
        validation_batch_size: samples in a batch of validation; by default batch_size.
        previews: number of validation samples whose maps are drawn before and after.
        track: where the metrics go beside the CSV files: tensorboard, wandb, mlflow and the other trackers of accelerate, with commas or spaces between them, or none.
        progress: shows a progress display.
        checkpoint_seconds: seconds between two savings of the state.

    Returns:
        The model with its best weights, the metrics, and the folders of the best checkpoint and of the run. A module is trained
        in place; its mode and device are as before.

    Raises:
        UserError: for unusable arguments, samples or folders before training starts.
        NonFiniteLossError: for a loss or a gradient that is not finite.
    """
    given = dict(locals())
    from relevit.models.loading import load
    from relevit.training.loop import finetune as train

    changes = {name: given.pop(name) for name in ("checkpoint", "num_classes", "model_args")}
    source, samples, out = (given.pop(name) for name in ("model", "samples", "out"))
    if any(value is not None for value in changes.values()):
        source = load(source, protocol=protocol, **changes)[0]
    return train(source, samples, out, **given)


def show(result: FinetuneResult, given: Mapping[str, Any]) -> None:
    """The trials of learning rates, the metrics and the best checkpoint."""
    if "trials" in result.metrics:
        _show_trials(result.metrics["trials"])
    for name, value in result.metrics.items():
        if name not in ("history", "trials"):  # it is in epochs.csv
            terminal.show(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
    terminal.show(f"best checkpoint: {result.checkpoint}")


def _show_trials(trials: list[dict[str, Any]]) -> None:
    """The trials of learning rates as a table."""
    from relevit.report.table import Table

    rows = []
    for trial in trials:
        if "failed" in trial:
            rows.append((f"{trial['lr']:g}", "", "", "", "", "failed: not finite"))
            continue
        keeps_accuracy, keeps_loss = trial["keeps_accuracy"], trial["loss_does_not_rise"]
        verdict = "allowed" if keeps_accuracy and keeps_loss else "L_cls rises" if keeps_accuracy else "accuracy falls"
        accuracy = f"{trial['accuracy']:.1f}", f"{trial['accuracy_change']:+.1f}"
        loss = f"{trial['classification_loss']:.4f}", f"{trial['classification_loss_change']:+.4f}"
        rows.append((f"{trial['lr']:g}", *accuracy, *loss, verdict + (", chosen" if trial["chosen"] else "")))
    columns = ("learning rate", "accuracy", "change", "L_cls", "change", "by the rule")
    terminal.show(Table("trials", columns, rows, left=(0, 5)))
    if not any(trial.get("keeps_accuracy") and trial.get("loss_does_not_rise") for trial in trials):
        terminal.show("L_cls rises wherever accuracy is kept: accuracy decides alone")
