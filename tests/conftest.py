"""Shapes and types in the package's signatures are checked at run time in tests, by jaxtyping's import hook."""

from jaxtyping import install_import_hook

install_import_hook("relevit", "shape_check.after_return")
