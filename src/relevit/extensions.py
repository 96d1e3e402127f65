"""Tables that other distributions add rows to: explainers, measurements, benchmarks, mask formats, methods, experiments.

A distribution declares an entry point of the group "relevit.TABLE", whose name is the row's and whose object is a row as
those of the table are:

    [project.entry-points."relevit.explainers"]
    my_explainer = "my_package.maps:ROW"
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from relevit.errors import UserError

Row = TypeVar("Row")


class Table(MutableMapping[str, Row], Generic[Row]):
    """Rows by name: those of the package first, in their order, then others' by name. An entry point is loaded when its row
    is asked for, no sooner: what it imports may itself need the table's module. A program may set rows of its own."""

    def __init__(self, group: str, builtin: Mapping[str, Row]) -> None:
        self.group, self.builtin = group, dict(builtin)
        self._loaded: dict[str, Row] = {}

    @cached_property
    def added(self) -> dict[str, EntryPoint]:
        """Other distributions' entry points. Raises UserError where two rows have one name."""
        points: dict[str, EntryPoint] = {}
        for point in sorted(entry_points(group=f"relevit.{self.group}"), key=lambda point: (point.name, point.value)):
            if point.name in self.builtin or point.name in points:
                raise UserError(
                    f"{_owner(point)} adds {point.name!r} to {self.group}, which is there already: remove it"
                )
            points[point.name] = point
        return points

    def __getitem__(self, name: str) -> Row:
        if name in self.builtin:
            return self.builtin[name]
        if name not in self._loaded:
            point = self.added[name]
            try:
                self._loaded[name] = point.load()
            except Exception as error:  # whatever another's code raises
                raise UserError(f"{name!r} of {_owner(point)} ({self.group}) could not be loaded: {error}") from error
        return self._loaded[name]

    def __setitem__(self, name: str, row: Row) -> None:
        self.builtin[name] = row

    def __delitem__(self, name: str) -> None:
        del self.builtin[name]

    def __contains__(self, name: object) -> bool:
        return name in self.builtin or name in self.added

    def __iter__(self) -> Iterator[str]:
        yield from self.builtin
        yield from (name for name in self.added if name not in self.builtin)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
