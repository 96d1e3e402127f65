"""The folder that a command of measurements writes, and what of it is done already.

    OUT/config.json                                settings, and the identity of every model and benchmark
    OUT/ROWS/<benchmark>/<model>/part-*.parquet    the rows, one file for a shard, each whole or absent
    OUT/results.json                               the figures of the latest call's models and benchmarks

ROWS is "predictions" for `evaluate`, "rows" for the others.

A second call does what is missing: benchmarks, models, or single shards. What was made with other weights, of other
images, or under another protocol is never mixed in: the call is refused with the differences. An image that could not be
read stays so in its row; where files were mended or weights replaced, remove the rows' folder and call again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa

from relevit.evaluation.rows import known_parts, part_count, part_name, read_rows, write_part
from relevit.folders import OwnedFolder
from relevit.processes import Processes

CONFIG, RESULTS, PREDICTIONS = "config.json", "results.json", "predictions"
_APART = ("models", "benchmarks", "answers", "about")  # of a configuration: what is not compared as a whole
_LONGEST = 120  # characters of a folder's name


class RowsFolder:
    """The folder `out` of a command, for rows with the settings `config`: {"models": {name: identity}, "benchmarks": {name:
    identity}, "answers": {benchmark: {model: a hash of what is right for each image}}, and others such as "protocol"}.

    command: such as "evaluate". columns: the measurement's own.
    """

    def __init__(self, out: str | Path, command: str, config: Mapping[str, Any], columns: pa.Schema) -> None:
        """Raise UserError, with the differences, where the folder holds something else, or rows that do not go with these."""
        self.out, self.columns = Path(out), columns
        self.rows_folder = PREDICTIONS if command == "evaluate" else "rows"
        self.format: Any = config.get("format", "parquet")
        self._owned = OwnedFolder(out, f"relevit {command}", config, record=CONFIG, compare=self._differences)
        self.config = self._owned.settings
        earlier = self._owned.earlier or {}
        for kind in ("models", "benchmarks"):
            self.config[kind] |= {k: v for k, v in earlier.get(kind, {}).items() if k not in self.config[kind]}
        for benchmark, models in earlier.get("answers", {}).items():
            self.config["answers"][benchmark] = models | self.config["answers"].get(benchmark, {})

    @contextmanager
    def held(self, team: Processes) -> Iterator[None]:
        """The folder is ours, and no other command writes to it, until all processes of the team are done."""
        team.wait()  # all have looked at the folder as it was
        if not team.is_main:
            team.wait()
        with self._owned:
            if team.is_main:
                team.wait()
            yield
            team.wait()

    def rows(self, benchmark: str, model: str) -> Path:
        """See `rows_place`."""
        return rows_place(self.out, benchmark, model, self.rows_folder)

    def done(self, benchmark: str, models: Collection[str]) -> tuple[dict[str, set[int]], int | None]:
        """The shards that are done for each model, and how many there are; of a stream that is known once one model is finished."""
        parts = {model: known_parts(self.rows(benchmark, model)) for model in models}
        counts = [part_count(path) for of_model in parts.values() for path in of_model.values()]
        return {model: set(of_model) for model, of_model in parts.items()}, max((c for c in counts if c), default=None)

    def close_stream(self, benchmark: str, models: Collection[str], shards: int) -> None:
        """Put the number of shards, which is known at last, into the files' names."""
        for model in models:
            for number, path in known_parts(self.rows(benchmark, model)).items():
                path.replace(path.with_name(part_name(number, shards, self.format)))

    def write(self, benchmark: str, model: str, shard: int, shards: int | None, part: pa.Table) -> None:
        """Write the rows of a shard; `shards`: how many there are, None where nobody knows yet."""
        write_part(self.rows(benchmark, model) / part_name(shard, shards, self.format), part)

    def read(self, benchmark: str, model: str) -> pa.Table:
        """All rows of a model on a benchmark."""
        return read_rows(self.rows(benchmark, model), self.columns)

    def _differences(self, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
        """What differs from the earlier settings; of models and benchmarks only what has rows."""
        found = [
            f"{name} was {earlier.get(name)!r}, now {now.get(name)!r}"
            for name in {**earlier, **now}
            if name not in _APART and earlier.get(name) != now.get(name)
        ]
        outdated = self._outdated(earlier, now)
        if outdated:
            outdated[-1] += f" (to make such rows anew, remove them below {self.out / self.rows_folder})"
        return found + outdated

    def _outdated(self, earlier: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
        """Models, benchmarks and right answers that are others than those of the rows."""
        found = []
        for kind in ("models", "benchmarks"):
            for name, now in settings[kind].items():
                before = earlier.get(kind, {}).get(name)
                if before is None or before == now or not self._has_rows(kind, name, earlier):
                    continue
                parts = [key for key in {**before, **now} if before.get(key) != now.get(key)]
                told = ", ".join(f"{key} {_brief(before.get(key))}, now {_brief(now.get(key))}" for key in parts)
                found.append(f"{kind.removesuffix('s')} {name} has other {told}")
        for benchmark, models in settings["answers"].items():
            before = earlier.get("answers", {}).get(benchmark, {})
            found += [
                f"other classes are right for {model} on {benchmark} (by the class map, or the benchmark's labels)"
                for model, now in models.items()
                if before.get(model, now) != now and known_parts(self.rows(benchmark, model))
            ]
        return found

    def _has_rows(self, kind: str, name: str, earlier: Mapping[str, Any]) -> bool:
        others = earlier.get("benchmarks" if kind == "models" else "models", {})
        pairs = [(other, name) if kind == "models" else (name, other) for other in others]
        return any(known_parts(self.rows(benchmark, model)) for benchmark, model in pairs)


def rows_place(out: str | Path, benchmark: str, model: str, rows_folder: str = PREDICTIONS) -> Path:
    """Where the rows of a model on a benchmark lie in a folder; names that are paths are made names of folders."""
    return Path(out) / rows_folder / _folder(benchmark, nested=True) / _folder(model)


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _folder(name: str, nested: bool = False) -> str:
    """A name as that of a folder, one for one: what is unusual in file names is percent-encoded. `nested`: a/b stays so."""
    parts = name.split("/")
    if nested and all(part not in ("", ".", "..") for part in parts):
        return "/".join(_folder(part) for part in parts)
    text = quote(name, safe=" @+=,()")
    if text.startswith("."):
        text = "%2E" + text[1:]
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 17]}-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
    return text
