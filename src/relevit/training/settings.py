"""What surrounds a training run: its arguments' ranges, accelerate, the model's state before and after, TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from relevit.errors import UserError
from relevit.explainers import EXPLAINERS
from relevit.processes import leave_at_exit

# The arguments that a run's configuration does not name: the weights do not depend on them, or it has their fingerprints
# (of model and samples) or what they come to (the method's options). Any other argument is recorded and compared.
NOT_RECORDED = (
    "model samples out masks validation validation_masks ignore manifest class_map options rates "
    "previews workers tensorboard progress checkpoint_seconds"
).split()


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raise UserError for a number out of its range."""
    for name in ("epochs", "batch_size", "lr_decay_epochs", "accumulation", "validation_every"):
        if not isinstance(arguments[name], int) or arguments[name] < 1:
            raise UserError(f"{name} must be a whole number of at least 1, not {arguments[name]!r}")
    for name in ("max_steps", "validation_batch_size"):
        if arguments[name] is not None and (not isinstance(arguments[name], int) or arguments[name] < 1):
            raise UserError(f"{name} must be None or a whole number of at least 1, not {arguments[name]!r}")
    for name in ("lr", "weight_decay", "lr_decay"):
        if not isinstance(arguments[name], int | float) or not 0 <= arguments[name] < math.inf:
            raise UserError(f"{name} must be a number of at least 0, not {arguments[name]!r}")
    if not isinstance(arguments["seed"], int) or arguments["seed"] < 0:
        raise UserError(f"seed must be a whole number of at least 0, not {arguments['seed']!r}")
    for name, allowed in (("target", ("label", "predicted")), ("mixed_precision", ("no", "bf16", "fp16"))):
        if arguments[name] not in allowed:
            raise UserError(f"{name} must be one of {', '.join(allowed)}, not {arguments[name]!r}")


def check_explainer(name: str, second_order: bool) -> bool:
    """Whether maps of this explainer are computed with second-order gradients. Raises UserError for one that does not
    train."""
    if name not in EXPLAINERS:
        raise UserError(f"unknown explainer {name!r}: choose one of {', '.join(EXPLAINERS)}")
    explainer = EXPLAINERS[name]
    if not explainer.trains:
        able = [other for other, row in EXPLAINERS.items() if row.trains]
        raise UserError(
            f"explainer {name!r} gives maps without a gradient, which cannot train: choose {', '.join(able)}"
        )
    return second_order or explainer.needs_second_order


def make_accelerator(mixed_precision: str) -> Accelerator:
    """Accelerate's view of devices and processes. Its process-wide state is renewed for another precision."""
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed_precision:
        AcceleratorState._reset_state()
    try:
        leave_at_exit()
        return Accelerator(mixed_precision=mixed_precision)
    except ValueError as error:
        raise UserError(f"mixed_precision={mixed_precision!r} does not work on this machine: {error}") from error


@contextmanager
def tensorboard_writer(folder: Path, step: int) -> Iterator[Any]:
    """A context that yields a writer of TensorBoard's files; what was written for steps after `step` is discarded."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder), purge_step=step + 1)
    try:
        yield writer
    finally:
        writer.close()


def to_board(board: Any, kind: str, values: Mapping[str, float], step: int) -> None:
    """Write values as KIND/NAME."""
    for name, value in values.items():
        board.add_scalar(f"{kind}/{name}", value, step)
