"""The versions that a result depends on beside its settings."""

from __future__ import annotations

RELEVIT = "0.1.0"


def versions() -> dict[str, str]:
    """What the bits of a result depend on beside the arguments."""
    import platform

    return {"python": platform.python_version(), **libraries()}


def libraries() -> dict[str, str]:
    """The versions of the libraries that compute."""
    import timm
    import torch

    return {"torch": torch.__version__, "timm": timm.__version__}
