"""The sets of weights in what a training loop wrote: containers however nested, prefixes however combined.

Nothing is taken from a list of known names: a prefix is whatever stands before names that the architecture has, in a container
wherever it is. Names count only where several sets fit and one has to be chosen.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from relevit.errors import UserError

_DEEPEST = 6  # containers within containers
_ENOUGH = 0.5  # of the architecture's names
_AS_TIMM = ("state_dict_ema", "model_ema", "state_dict", "model")  # the order in which timm takes them for evaluation
_THE_MODEL = ("model", "net", "module", "network", "backbone", "encoder", "base_encoder", "weights", "model_state_dict")
Convert = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class Container:
    """A mapping with tensors in it: the keys that lead to it, and its tensors by name."""

    path: tuple[str, ...]
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class WeightSet:
    """Weights that belong to the architecture: those of a container below a prefix.

    added: a prefix that timm's conversion expects and the file lacks. converted: whether the names are another library's, which
    timm converts. matched: how many names of the architecture are among them.
    """

    container: Container
    prefix: str
    matched: int
    converted: bool = False
    added: str = ""

    @property
    def name(self) -> str:
        """As a user names it: the keys that lead to it, and the prefix where it tells one model from another."""
        return "/".join([*self.container.path, *filter(None, [self.prefix.rstrip(".")])])

    @property
    def words(self) -> list[str]:
        """The keys and the parts of the prefix."""
        return [*self.container.path, *self.prefix.rstrip(".").split(".")]

    @property
    def averaged(self) -> bool:
        """Whether its name says that it is an average over steps."""
        return any({"ema", "averaged", "swa"} & set(re.split(r"[_\W]+", word.lower())) for word in self.words)

    def strip(self, tensors: Mapping[str, Any]) -> dict[str, Any]:
        """Those of a container's tensors that are below the prefix, without it."""
        size = len(self.prefix)
        return {self.added + name[size:]: value for name, value in tensors.items() if name.startswith(self.prefix)}

    @property
    def weights(self) -> dict[str, Tensor]:
        """The tensors without their prefix."""
        return self.strip(self.container.tensors)

    @property
    def others(self) -> dict[str, Tensor]:
        """The container's tensors outside the prefix."""
        return {name: value for name, value in self.container.tensors.items() if not name.startswith(self.prefix)}


def containers(content: Mapping[Any, Any], path: tuple[str, ...] = ()) -> Iterator[Container]:
    """Every mapping from names to tensors, outer ones first; an optimiser's, whose keys are numbers, is none."""
    tensors = {name: value.detach() for name, value in content.items() if isinstance(value, Tensor) and _is_name(name)}
    if tensors:
        yield Container(path, tensors)
    if len(path) < _DEEPEST:
        for name, value in content.items():
            if isinstance(value, Mapping) and _is_name(name):
                yield from containers(value, (*path, name))


def find_sets(content: Mapping[Any, Any], target: Collection[str], convert: Convert | None) -> list[WeightSet]:
    """The sets of weights in a file that have most of the names of an architecture, as they are or as `convert` names them."""
    found: list[WeightSet] = []
    for container in containers(content):
        counts = prefixes(container.tensors, target)
        own = [
            WeightSet(container, prefix, count) for prefix, count in counts.items() if count >= _ENOUGH * len(target)
        ]
        found += own or (_converted(container, target, convert) if convert is not None else [])
    return found


def prefixes(names: Collection[str], target: Collection[str]) -> Counter[str]:
    """What stands before names of the architecture, and how often."""
    counts: Counter[str] = Counter()
    for name in names:
        start = 0
        while start >= 0:
            if name[start:] in target:
                counts[name[:start]] += 1
            start = name.find(".", start) + 1 or -1
    return counts


def choose(sets: list[WeightSet], wanted: str | None, source: object) -> tuple[WeightSet, list[str]]:
    """The set that is used, and what is to be said about it. Raises UserError where the user has to choose."""
    names = [each.name or "the file itself" for each in sets]
    listed = ", ".join(
        f"{name} (an average)" if each.averaged else name for each, name in zip(sets, names, strict=True)
    )
    if wanted is not None:
        chosen = _wanted(sets, wanted)
        if len(chosen) != 1:
            what = "no set of weights" if not chosen else "several sets of weights"
            raise UserError(f"{source} has {what} called {wanted} that fit the architecture; it has: {listed}.")
        return chosen[0], [f"weights of {source}: {chosen[0].name or 'the file itself'}, as given (of {listed})"]
    if len(sets) == 1:
        note = [f"weights of {source}: {names[0]}, an average"] if sets[0].averaged else []
        return sets[0], note
    chosen_now, why = _default(sets)
    if chosen_now is None:
        raise UserError(f"{source} has {len(sets)} sets of weights that fit: {listed}; choose one with --weights NAME.")
    rest = ", ".join(name for each, name in zip(sets, names, strict=True) if each is not chosen_now)
    return chosen_now, [
        f"weights of {source}: {chosen_now.name or 'the file itself'}, {why}; there is also {rest}: choose with --weights"
    ]


def _wanted(sets: list[WeightSet], wanted: str) -> list[WeightSet]:
    exact = [each for each in sets if wanted in (each.name, each.prefix, each.prefix.rstrip(".") or None)]
    named = exact or [each for each in sets if wanted in each.words]
    if wanted == "ema":
        return [each for each in named if each.averaged] or [each for each in sets if each.averaged]
    if wanted == "model" and len(named) != 1:
        plain = [each for each in sets if not each.averaged]
        if len(plain) > 1:
            chosen = _default(plain)[0]
            return [chosen] if chosen is not None else plain
        return plain
    return named


def _default(sets: list[WeightSet]) -> tuple[WeightSet | None, str]:
    """What timm would evaluate, else the one that is called the model; of a student and its teacher, the teacher."""
    for key in _AS_TIMM:
        chosen = [each for each in sets if each.container.path[-1:] == (key,)]
        if len(chosen) == 1:
            return chosen[0], "which timm would evaluate"
        if chosen:
            sets = chosen
            break
    teachers = [each for each in sets if "teacher" in each.words]
    if len(teachers) == 1 and any("student" in each.words for each in sets):
        return teachers[0], "which is what self-supervised training evaluates"
    for word in _THE_MODEL:
        chosen = [each for each in sets if word in each.words and not each.averaged and "teacher" not in each.words]
        if len(chosen) == 1:
            return chosen[0], "the model itself by its name"
    return None, ""


def _converted(container: Container, target: Collection[str], convert: Convert) -> list[WeightSet]:
    """The set whose names are those of another library, converted as timm converts them; the best of all prefixes."""
    names = list(container.tensors)
    starts = {""}
    for name in names:
        parts = name.split(".")
        starts |= {".".join(parts[:count]) + "." for count in range(1, min(4, len(parts)))}
    often = [start for start in starts if 3 * sum(name.startswith(start) for name in names) > len(names) > 8]
    best: WeightSet | None = None
    for start in sorted(often, key=len):
        for added in ("", "visual."):
            tried = WeightSet(container, start, 0, converted=True, added=added)
            matched = sum(name in target for name in convert(tried.weights))
            if matched >= _ENOUGH * len(target) and (best is None or matched > best.matched):
                best = WeightSet(container, start, matched, converted=True, added=added)
    return [best] if best is not None else []


def _is_name(key: Any) -> bool:
    return isinstance(key, str)
