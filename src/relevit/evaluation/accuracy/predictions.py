"""What a model answered to each image of a benchmark, in memory and as files: one row an image, Parquet or CSV.

Every figure of `relevit evaluate` is computed from these rows. A benchmark's rows lie in one folder for each model, in
parts of a fixed number of images: `part-00003-of-00012.parquet`. The columns, the same in both formats (a list is
numbers with spaces between them in CSV):

    index       the image's place in the benchmark, from 0
    image       its name, relative to the benchmark's folder
    class       the name of its class (of its folder)
    object      what it shows, where several images show one object; else empty
    answers     the model's classes that count as a hit
    top5        the model's first five classes, -1 where there are fewer; of equal logits the lower class comes first
    confidence  softmax probability of the first, over the classes that compete (see `Predictions`)
    hit1, hit5  whether an answer is the first, is among the first five
    fault       why the image could not be read; such a row has no answer, and counts as neither hit nor miss
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Integer, Shaped

from relevit.errors import UserError
from relevit.evaluation.accuracy.recall import Accuracy
from relevit.files import atomic_write

Format = Literal["parquet", "csv"]
FORMATS = ("parquet", "csv")
COLUMNS = ("index", "image", "class", "object", "answers", "top5", "confidence", "hit1", "hit5", "fault")
_PART = re.compile(r"part-(\d{5})(?:-of-(\d{5}))?\.(parquet|csv)")


class Unreadable(NamedTuple):
    """An image that could not be read: its place in the benchmark, its name, the name of its class, and the reason."""

    place: int
    key: str
    group: str
    fault: str


@dataclass(frozen=True)
class Predictions:
    """What one model answered to the images of one benchmark that could be read, in the benchmark's order.

    Attributes:
        keys: the images' names, relative to the benchmark's folder.
        groups: the class name of each image (of a folder benchmark, its folder).
        answers: the model's classes that count as a hit, for each image.
        top5: the model's first five classes among those that compete, best first; -1 where there are fewer, and where the
            logits are not finite.
        confidence: softmax probability of the first of them, over the classes that compete; NaN where logits are not finite.
        hit1, hit5: whether one of the answers is the first, is among the first five.
        objects: what each image shows, where several show one object.
        indices: the images' places in the benchmark; None for 0, 1, 2, ...
        unreadable: the images that could not be read.
    """

    keys: list[str]
    groups: Shaped[np.ndarray, " images"]
    answers: list[tuple[int, ...]]
    top5: Int32[np.ndarray, "images 5"]
    confidence: Float32[np.ndarray, " images"]
    hit1: Bool[np.ndarray, " images"]
    hit5: Bool[np.ndarray, " images"]
    objects: Shaped[np.ndarray, " images"] | None = None
    indices: Integer[np.ndarray, " images"] | None = None
    unreadable: list[Unreadable] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    def accuracy(self) -> Accuracy:
        """R@1 and R@5 with their intervals."""
        return Accuracy(self.hit1, self.hit5, self.groups, self.objects)

    def only(self, chosen: Bool[np.ndarray, " images"]) -> Predictions:
        """The same for some of the images that could be read."""
        where = np.flatnonzero(chosen)
        return Predictions(
            [self.keys[i] for i in where],
            self.groups[where],
            [self.answers[i] for i in where],
            self.top5[where],
            self.confidence[where],
            self.hit1[where],
            self.hit5[where],
            None if self.objects is None else self.objects[where],
            self.places()[where],
        )

    def places(self) -> Integer[np.ndarray, " images"]:
        """The images' places in the benchmark."""
        return np.arange(len(self.keys)) if self.indices is None else self.indices


def concatenate(parts: Sequence[Predictions]) -> Predictions:
    """Parts of one benchmark, in their order, as one."""
    if len(parts) == 1:
        return parts[0]
    known = [part for part in parts if len(part)]
    objects = [part.objects for part in known if part.objects is not None]
    return Predictions(
        list(chain.from_iterable(part.keys for part in parts)),
        np.concatenate([np.asarray(part.groups) for part in parts]) if parts else np.array([], str),
        list(chain.from_iterable(part.answers for part in parts)),
        np.concatenate([np.zeros((0, 5), np.int32), *(part.top5 for part in parts)]),
        np.concatenate([np.zeros(0, np.float32), *(part.confidence for part in parts)]),
        np.concatenate([np.zeros(0, bool), *(part.hit1 for part in parts)]),
        np.concatenate([np.zeros(0, bool), *(part.hit5 for part in parts)]),
        np.concatenate(objects) if known and len(objects) == len(known) else None,
        np.concatenate([np.zeros(0, np.int64), *(part.places() for part in parts)]),
        list(chain.from_iterable(part.unreadable for part in parts)),
    )


def part_name(number: int, count: int | None, format: Format) -> str:
    """The file of part `number`, from 0, of `count` parts; None where nobody knows how many there will be."""
    return f"part-{number:05d}{'' if count is None else f'-of-{count:05d}'}.{format}"


def known_parts(folder: Path) -> dict[int, Path]:
    """The files of parts in a folder by their number."""
    if not folder.is_dir():
        return {}
    found = {path: _PART.fullmatch(path.name) for path in sorted(folder.iterdir())}
    return {int(match[1]): path for path, match in found.items() if match}


def part_count(path: Path) -> int | None:
    """How many parts there are, as a part's file name says; None where it does not."""
    match = _PART.fullmatch(path.name)
    return int(match[2]) if match and match[2] else None


def write_part(path: Path, part: Predictions) -> None:
    """Write rows to a `.parquet` or `.csv` file, atomically, in the order of the benchmark.

    Raises UserError when the disk is full; nothing is left behind then.
    """
    columns = _columns(part)
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(zip(*([_cell(value) for value in columns[name]] for name in COLUMNS), strict=True))
        atomic_write(path, text.getvalue())
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "index": pa.int64(),
        "answers": pa.list_(pa.int32()),
        "top5": pa.list_(pa.int32()),
        "confidence": pa.float32(),
        "hit1": pa.bool_(),
        "hit5": pa.bool_(),
    }
    schema = pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
    table = pa.table({name: pa.array(columns[name], schema.field(name).type) for name in COLUMNS}, schema=schema)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    atomic_write(path, buffer.getvalue())


def read_part(path: str | Path) -> Predictions:
    """Read rows back from a `.parquet` or `.csv` file. Raises UserError for one that cannot be read."""
    path = Path(path)
    try:
        columns = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
        missing = [name for name in COLUMNS if name not in columns]
        if missing:
            raise ValueError(f"it has no column {missing[0]}")
        return _from_columns(columns)
    except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's errors are among them
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): remove it and call evaluate again.") from error


def read_predictions(folder: str | Path) -> Predictions:
    """The rows of one model on one benchmark: OUT/predictions/<benchmark>/<model>, in the benchmark's order.

    Raises UserError where there are none, parts are missing, or a file cannot be read.
    """
    folder = Path(folder)
    parts = known_parts(folder)
    if not parts:
        raise UserError(
            f"{folder} holds no predictions (part-*.parquet or part-*.csv): give a folder that evaluate wrote"
        )
    names = [_PART.fullmatch(path.name) for path in parts.values()]
    counts = {int(match[2]) for match in names if match and match[2]}
    expected = max(counts) if counts else max(parts) + 1
    missing = sorted(set(range(expected)) - set(parts))
    if missing or len(counts) > 1:
        raise UserError(
            f"{folder} is not finished, {len(missing)} of {expected} parts are missing: call evaluate again with the same --out"
        )
    return concatenate([read_part(parts[number]) for number in sorted(parts)])


def _columns(part: Predictions) -> dict[str, list[Any]]:
    """The rows, readable and not, in the benchmark's order, as columns."""
    places = part.places()
    order = np.argsort(
        np.concatenate([places, np.array([each.place for each in part.unreadable], np.int64)]), kind="stable"
    )
    none: list[Any] = [None] * len(part.unreadable)
    objects = [None] * len(part) if part.objects is None else [str(each) for each in part.objects]
    columns: dict[str, list[Any]] = {
        "index": [*places.tolist(), *(each.place for each in part.unreadable)],
        "image": [*part.keys, *(each.key for each in part.unreadable)],
        "class": [*map(str, part.groups), *(each.group for each in part.unreadable)],
        "object": objects + none,
        "answers": [*map(list, part.answers), *none],
        "top5": [*part.top5.tolist(), *none],
        "confidence": [*part.confidence, *none],
        "hit1": [*part.hit1.tolist(), *none],
        "hit5": [*part.hit5.tolist(), *none],
        "fault": [*([None] * len(part)), *(each.fault for each in part.unreadable)],
    }
    return {name: [values[i] for i in order] for name, values in columns.items()}


def _from_columns(columns: dict[str, list[Any]]) -> Predictions:
    fault = columns["fault"]
    read = [row for row, reason in enumerate(fault) if reason is None]
    bad = [row for row, reason in enumerate(fault) if reason is not None]
    pick = {name: [values[row] for row in read] for name, values in columns.items()}
    known = any(each is not None for each in pick["object"])
    return Predictions(
        pick["image"],
        np.array(pick["class"], dtype=str),
        [tuple(each or ()) for each in pick["answers"]],
        np.array(pick["top5"], dtype=np.int32).reshape(len(read), 5),
        np.array(pick["confidence"], dtype=np.float32),
        np.array(pick["hit1"], dtype=bool),
        np.array(pick["hit5"], dtype=bool),
        np.array(pick["object"], dtype=str) if known else None,
        np.array(pick["index"], dtype=np.int64),
        [Unreadable(columns["index"][row], columns["image"][row], columns["class"][row], fault[row]) for row in bad],
    )


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    import pyarrow.parquet as pq

    # Without Arrow's threads: they read through Python's objects, and the interpreter may end before they do.
    with pq.ParquetFile(io.BytesIO(path.read_bytes()), pre_buffer=False) as file:
        return file.read(use_threads=False).to_pydict()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _read_csv(path: Path) -> dict[str, list[Any]]:
    def numbers(text: str) -> list[int]:
        return [int(each) for each in text.split()]

    def truth(text: str) -> bool:
        return {"True": True, "False": False}[text]

    parse: dict[str, Any] = {
        "index": int,
        "answers": numbers,
        "top5": numbers,
        "confidence": np.float32,
        "hit1": truth,
        "hit5": truth,
    }
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    absent = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if absent:
        raise ValueError(f"it has no column {absent[0]}")
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("a line has too many or too few columns")
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for row in rows:
        for name in COLUMNS:
            bare = name in ("image", "class")  # texts that are never missing, though they may be empty
            empty = row[name] == "" and not bare
            columns[name].append(None if empty else parse.get(name, str)(row[name]))
    return columns
