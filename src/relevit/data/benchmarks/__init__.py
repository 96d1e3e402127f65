"""Benchmarks to measure a model on: one file for each, with the functions that find and open it."""

from relevit.data.benchmarks.class_folders import ClassFolders, composed_sets
from relevit.data.benchmarks.discovery import Discovery, Found, find_benchmarks
from relevit.data.benchmarks.image_set import ImageSet, LabelledImage
from relevit.data.benchmarks.table import BENCHMARKS, PROTOCOLS

__all__ = [
    "BENCHMARKS",
    "PROTOCOLS",
    "ClassFolders",
    "Discovery",
    "Found",
    "ImageSet",
    "LabelledImage",
    "composed_sets",
    "find_benchmarks",
]
