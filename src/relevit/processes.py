"""Several processes that share one evaluation, started by `torchrun` or `accelerate launch`; one alone needs none of it."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

from relevit.errors import ArgumentError

if TYPE_CHECKING:
    import torch  # imported where it is used: worker processes that read pictures do without


def is_first() -> bool:
    """Whether this process is alone, or the first of those that a launcher started: the one that speaks, and holds folders."""
    return os.environ.get("RANK", "0") == "0" or os.environ.get("WORLD_SIZE", "1") == "1"


class Processes:
    """This process's place among those that share the work; alone where no launcher started several.

    Every one of them must call the same functions in the same order: they wait for each other.
    """

    def __init__(self, device: str | torch.device | None = None) -> None:
        self.rank, self.count, self.device = 0, int(os.environ.get("WORLD_SIZE", "1")), device
        self._state: Any = None
        if self.count > 1:
            import torch
            from accelerate import PartialState
            from accelerate.utils import parse_flag_from_env

            asked = parse_flag_from_env("ACCELERATE_USE_CPU") or (
                device is not None and torch.device(device).type == "cpu"
            )
            cpu = asked or not torch.accelerator.is_available()
            leave_at_exit()
            self._state = PartialState(cpu=cpu, timeout=timedelta(days=7))  # one may wait long for the others
            self.rank, self.count = self._state.process_index, self._state.num_processes
            self.device = self._state.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        if self._state is not None:
            self._state.wait_for_everyone()

    def of_main(self, value: Any) -> Any:
        """The main process's value, in all of them."""
        if self._state is None:
            return value
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([value])[0]

    def main_first(self, make: Callable[[], Any]) -> Any:
        """What `make` gives: in the main process first, so that the others find the files that it wrote."""
        made = make() if self.is_main else None
        self.wait()
        return made if self.is_main else make()

    def gathered(self, values: list[Any]) -> list[Any]:
        """The values of all processes, in the order of the processes, in all of them."""
        if self._state is None:
            return values
        from accelerate.utils import gather_object

        return gather_object(values)


@cache
def leave_at_exit() -> None:
    """Leave torch's process group of gloo before the interpreter ends, if there is one and nobody has left it by then.

    A group that is never left keeps threads that may still hold tensors when the interpreter ends. A thread that then wants
    the interpreter to free one is unwound by force, and the program aborts after its work is done ("terminate called
    without an active exception"), one time in a hundred or so with gloo. Groups of other backends are left alone: where one process
    fails, leaving might wait for the others.
    """
    atexit.register(_leave)


def _leave() -> None:
    import torch.distributed

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    if torch.distributed.get_backend() == "gloo":
        torch.distributed.destroy_process_group()


def pick_device(name: str | None) -> str:
    """The device that was asked for, by default the accelerator if there is one. Raises ArgumentError for one that cannot be used here."""
    import torch

    if name is None:
        home = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return home.type if home is not None else "cpu"
    try:
        torch.empty(1, device=name)
    except (
        RuntimeError,
        AssertionError,
        NotImplementedError,
    ) as error:  # no driver, torch without CUDA, no such device
        reason = str(error).strip().splitlines()[0]
        raise ArgumentError("device", f"{name} cannot be used here ({reason}): give cpu, or leave it out") from error
    return name


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
