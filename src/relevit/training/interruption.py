"""Ctrl-C during training: finish the step, save, stop. A second Ctrl-C stops at once."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interruption:
    """A context in which the first SIGINT only sets `requested`. Outside of the main thread it changes nothing."""

    requested = False

    def __enter__(self) -> Interruption:
        self._old: Any = None
        if threading.current_thread() is threading.main_thread():
            self._old = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, *_: object) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, self._old)

    def __exit__(self, *_: object) -> None:
        if self._old is not None and not self.requested:
            signal.signal(signal.SIGINT, self._old)
