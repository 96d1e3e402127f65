"""Benchmarks to measure a model on: one file for each, with the functions that find and open it."""

from relevit.data.benchmarks.class_folders import class_folders, composed_sets
from relevit.data.benchmarks.discovery import Discovery, Found, find_benchmarks
from relevit.data.benchmarks.table import BENCHMARKS, PROTOCOLS

__all__ = [
    "BENCHMARKS",
    "PROTOCOLS",
    "Discovery",
    "Found",
    "class_folders",
    "composed_sets",
    "find_benchmarks",
]
