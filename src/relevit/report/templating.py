"""The environment of the pages' templates: one set of rules for all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from relevit.report.pictures import colour_bar, data_uri, tile_uri
from relevit.report.plots import COLOURS
from relevit.report.words import number, readable, signed


def template_environment(**filters: Callable[..., Any]) -> Environment:
    """The folder templates/, with everything escaped, an error for an unknown name, and these filters beside those of all pages."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "signed": signed,
        "readable": readable,
        "percent": "{:.0%}".format,
        "data_uri": data_uri,
        "tile_uri": tile_uri,
        **filters,
    }
    environment.globals |= {"colours": COLOURS, "colour_bar": colour_bar()}
    return environment
