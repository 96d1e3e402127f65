"""The folder that `evaluate` writes, and what of it is done already.

    OUT/config.json                                       protocol, and the identity of every model and benchmark
    OUT/predictions/<benchmark>/<model>/part-*.parquet    the rows, one file for a shard, each whole or absent
    OUT/results.json                                      the figures of the latest call's models and benchmarks

A second call does what is missing: benchmarks, models, or single shards. What was made with other weights, of other
images, or under another protocol is never mixed in: the call is refused with the differences. An image that could not be
read stays so in its row; where files were mended or weights replaced, remove the rows' folder and call again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from relevit.errors import UserError
from relevit.evaluation.accuracy.predictions import (
    Predictions,
    known_parts,
    part_count,
    part_name,
    read_predictions,
    write_part,
)
from relevit.files import atomic_write

CONFIG, RESULTS, ROWS = "config.json", "results.json", "predictions"
KIND = "relevit evaluate"
_LONGEST = 120  # characters of a folder's name


class ResultsFolder:
    """The folder `out`, for results with the settings `config`: {"protocol", "precision", "format", "models": {name: identity},
    "benchmarks": {name: identity}, "answers": {benchmark: {model: a hash of what is right for each image}}}."""

    def __init__(self, out: str | Path, config: Mapping[str, Any]) -> None:
        self.out, self.config = Path(out), config

    def rows(self, benchmark: str, model: str) -> Path:
        """The folder of a model's rows on a benchmark. Names that are paths are made names of folders."""
        return self.out / ROWS / _folder(benchmark, nested=True) / _folder(model)

    def check(self) -> None:
        """Raise UserError, with the differences, where the folder holds something else, or results that do not go with these."""
        if not self.out.exists():
            return
        if not self.out.is_dir():
            raise UserError(f"{self.out} is a file: give a folder for the results, or a name that ends in .json")
        path = self.out / CONFIG
        if not path.is_file():
            if any(not each.name.startswith(".") for each in self.out.iterdir()):
                raise UserError(f"{self.out} holds other files: give a new folder for the results")
            return
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): give a new folder for the results") from error
        if not isinstance(earlier, dict) or earlier.get("kind") != KIND:
            raise UserError(f"{self.out} was not written by evaluate: give a new folder for the results")
        differences = self._differences(earlier)
        if differences:
            raise UserError(
                f"{self.out} holds results that do not go with these: {'; '.join(differences)}. Give a new folder for the "
                f"results, or remove what is outdated below {self.out / ROWS}."
            )
        for kind in ("models", "benchmarks"):
            self.config[kind].update({k: v for k, v in earlier.get(kind, {}).items() if k not in self.config[kind]})
        for benchmark, models in earlier.get("answers", {}).items():
            own = self.config["answers"].setdefault(benchmark, {})
            own.update({k: v for k, v in models.items() if k not in own})

    def begin(self) -> None:
        """Write the configuration: the folder is ours from now on."""
        text = json.dumps({"kind": KIND, **self.config}, indent=1, ensure_ascii=False) + "\n"
        path = self.out / CONFIG
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            atomic_write(path, text)

    def missing(self, benchmark: str, models: Collection[str], shards: int) -> dict[int, list[str]]:
        """The shards that are not done, with the models that they are missing for."""
        done = {model: set(known_parts(self.rows(benchmark, model))) for model in models}
        todo = {shard: [model for model in models if shard not in done[model]] for shard in range(shards)}
        return {shard: names for shard, names in todo.items() if names}

    def missing_of_stream(self, benchmark: str, models: Collection[str]) -> tuple[dict[str, set[int]], int | None]:
        """The shards that are done for each model, and how many there are, which is known once one model is finished."""
        done = {model: set(known_parts(self.rows(benchmark, model))) for model in models}
        counts = [part_count(path) for model in models for path in known_parts(self.rows(benchmark, model)).values()]
        return done, next((count for count in counts if count is not None), None)

    def close_stream(self, benchmark: str, models: Collection[str], shards: int) -> None:
        """Put the number of shards, which is known at last, into the files' names."""
        for model in models:
            for number, path in known_parts(self.rows(benchmark, model)).items():
                path.replace(path.with_name(part_name(number, shards, self.config["format"])))

    def write(self, benchmark: str, model: str, shard: int, shards: int | None, part: Predictions) -> None:
        write_part(self.rows(benchmark, model) / part_name(shard, shards, self.config["format"]), part)

    def read(self, benchmark: str, model: str) -> Predictions:
        return read_predictions(self.rows(benchmark, model))

    def _differences(self, earlier: Mapping[str, Any]) -> list[str]:
        """What differs from the earlier settings; of models and benchmarks only what has rows."""
        found = [
            f"{name} was {earlier.get(name)!r}, now {self.config[name]!r}"
            for name in ("protocol", "precision", "format")
            if earlier.get(name) != self.config[name]
        ]
        for kind in ("models", "benchmarks"):
            for name, now in self.config[kind].items():
                before = earlier.get(kind, {}).get(name)
                if before is None or before == now or not self._has_rows(kind, name, earlier):
                    continue
                parts = [key for key in {**before, **now} if before.get(key) != now.get(key)]
                told = ", ".join(f"{key} {_brief(before.get(key))}, now {_brief(now.get(key))}" for key in parts)
                found.append(f"{kind.removesuffix('s')} {name} has other {told}")
        for benchmark, models in self.config["answers"].items():
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
