"""Shapes and types in signatures are checked at run time, by jaxtyping's import hook; `quick_where` keeps the quick tests quick."""

import inspect

import pytest
from jaxtyping import install_import_hook

install_import_hook("relevit", "shape_check.after_return")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test with `@pytest.mark.quick_where(condition)` is slow for all parameters of which the condition does not hold."""
    for item in items:
        mark = item.get_closest_marker("quick_where")
        if mark is None:
            continue
        (condition,), values = mark.args, item.callspec.params  # type: ignore[attr-defined]
        if not condition(**{name: values[name] for name in inspect.signature(condition).parameters}):
            item.add_marker("slow")
