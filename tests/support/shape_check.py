"""The run-time check of signatures in tests, for conftest.py."""

from typing import Any

from beartype import BeartypeConf, beartype

_CHECK = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, too


def after_return(function: Any) -> Any:
    """Checks parameters and result once a function has returned, so that what it raises for wrong input comes first.

    jaxtyping asks twice: for the parameters alone (the result is Any), which is let through, and for all of it at the end.
    Objects may be made of anything: what uses them is checked.
    """
    if function.__annotations__.get("return") is Any or function.__name__ == "__init__":
        return function
    return _CHECK(function)
