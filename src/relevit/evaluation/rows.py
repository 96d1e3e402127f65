"""The rows of a measurement: an Arrow table with one row an image, in memory and as files, Parquet or CSV.

Every figure is computed from these rows. A set's rows lie in one folder for each model, in parts of a fixed number of images:
`part-00003-of-00012.parquet`. The columns, the same in both formats (a list is numbers with spaces between them in CSV):

    index    the image's place in the set, from 0
    image    its name, relative to the set's folder
    class    the name of its class (of its folder), empty where it is not known
    object   what it shows, where several images show one object; else empty
    ...      the measurement's own
    fault    why the image does not count, such as that it could not be read; its own columns are then empty
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import torch

from relevit.data.sets import Item
from relevit.errors import UserError
from relevit.files import atomic_write

Format = Literal["parquet", "csv"]
FORMATS = ("parquet", "csv")
NUMBERS = pa.list_(pa.int32())
_FIRST = (("index", pa.int64()), ("image", pa.string()), ("class", pa.string()), ("object", pa.string()))
_PART = re.compile(r"part-(\d{5})(?:-of-(\d{5}))?\.(parquet|csv)")


class Part(NamedTuple):
    """What a measurement found on some images: those that count, its own columns (a value an image), and the others with the
    reason. Columns may be tensors on any device."""

    items: list[Item]
    columns: dict[str, Any]
    faults: list[tuple[Item, str]]


class Fault(NamedTuple):
    """An image that does not count: its place in the set, its name, the name of its class, and the reason."""

    place: int
    name: str
    group: str
    reason: str


def whole(own: pa.Schema) -> pa.Schema:
    """The columns of a measurement, with those that all of them have."""
    return pa.schema([*_FIRST, *own, ("fault", pa.string())])


def table_of(parts: Sequence[Part], own: pa.Schema) -> pa.Table:
    """Parts as one table, in the order of the set."""
    items = [item for part in parts for item in part.items]
    faults = [fault for part in parts for fault in part.faults]
    everyone = [*items, *(item for item, _ in faults)]
    columns: dict[str, list[Any]] = {
        "index": [item.place for item in everyone],
        "image": [item.name for item in everyone],
        "class": [item.group for item in everyone],
        "object": [item.object for item in everyone],
        "fault": [*([None] * len(items)), *(reason for _, reason in faults)],
    }
    for name in own.names:
        columns[name] = [*_joined([part.columns[name] for part in parts if part.items]), *([None] * len(faults))]
    order = np.argsort(np.array(columns["index"], np.int64), kind="stable")
    return pa.table(
        {
            field.name: pa.array([columns[field.name][place] for place in order], field.type, from_pandas=False)
            for field in whole(own)
        },
        schema=whole(own),
    )


def _joined(values: Sequence[Any]) -> list[Any]:
    if values and isinstance(values[0], torch.Tensor):
        return list(torch.cat(list(values)).cpu().numpy())
    return [value for some in values for value in some]


def counted(table: pa.Table) -> pa.Table:
    """The rows of the images that count."""
    return table.filter(pc.is_null(table["fault"]))


def faults_of(table: pa.Table) -> list[Fault]:
    """The images that do not count, and why."""
    bad = table.filter(pc.is_valid(table["fault"])).select(["index", "image", "class", "fault"])
    return [Fault(*row.values()) for row in bad.to_pylist()]


def array(table: pa.Table, name: str) -> np.ndarray:
    """A column as an array, (images,), of a list's numbers (images, numbers); texts as text, null as empty."""
    column = table[name].combine_chunks()
    if pa.types.is_list(column.type):
        flat = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), -1) if len(column) else flat.reshape(0, 0)
    if pa.types.is_string(column.type):
        return np.array(pc.fill_null(column, "").to_pylist(), dtype=str)
    return column.to_numpy(zero_copy_only=False)


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


def write_part(path: Path, table: pa.Table) -> None:
    """Write rows to a `.parquet` or `.csv` file, atomically. Raises UserError when the disk is full; nothing is left then."""
    buffer = io.BytesIO()
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(table.column_names)
        writer.writerows(zip(*(_as_text(table[name]) for name in table.column_names), strict=True))
        buffer.write(text.getvalue().encode())
    else:
        pq.write_table(table, buffer, compression="zstd")
    atomic_write(path, buffer.getvalue())


def read_part(path: str | Path, own: pa.Schema) -> pa.Table:
    """Read rows back from a `.parquet` or `.csv` file. Raises UserError for one that cannot be read."""
    path, schema = Path(path), whole(own)
    try:
        table = _read_csv(path, schema) if path.suffix == ".csv" else _read_parquet(path)
        missing = [name for name in schema.names if name not in table.column_names]
        if missing:
            raise ValueError(f"it has no column {missing[0]}")
        return table.select(schema.names).cast(schema)
    except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's errors are among them
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): remove it and make the same call again.") from error


def read_rows(folder: str | Path, own: pa.Schema) -> pa.Table:
    """The rows of one model on one set, all parts in order.

    Raises UserError where there are none, parts are missing, or a file cannot be read.
    """
    folder = Path(folder)
    parts = known_parts(folder)
    if not parts:
        raise UserError(
            f"{folder} holds no predictions (part-*.parquet or part-*.csv): give a folder that evaluate wrote"
        )
    counts = {count for path in parts.values() if (count := part_count(path)) is not None}
    expected = max(counts) if counts else max(parts) + 1
    missing = sorted(set(range(expected)) - set(parts))
    if missing or len(counts) > 1:
        raise UserError(
            f"{folder} is not finished, {len(missing)} of {expected} parts are missing: make the same call again, with the same --out"
        )
    return pa.concat_tables([read_part(parts[number], own) for number in sorted(parts)])


class Rows(Mapping[str, Any]):
    """The rows of each model on one set; read from the disk whenever they are asked for, where they lie there."""

    def __init__(self, readers: Mapping[str, Callable[[], Any]]) -> None:
        self._readers = dict(readers)

    def made(self, make: Callable[[pa.Table], Any]) -> Rows:
        """What `make` makes of each, whenever it is asked for."""
        return Rows({model: lambda read=read: make(read()) for model, read in self._readers.items()})  # type: ignore[misc]

    def __getitem__(self, model: str) -> Any:
        return self._readers[model]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)


def _read_parquet(path: Path) -> pa.Table:
    # Without Arrow's threads: they read through Python's objects, and the interpreter may end before they do.
    with pq.ParquetFile(io.BytesIO(path.read_bytes()), pre_buffer=False) as file:
        return file.read(use_threads=False)


def _as_text(column: pa.ChunkedArray) -> list[Any]:
    """For CSV: a list as numbers with spaces between them, single precision in as few digits as tell it from others."""
    values = column.to_pylist()
    if pa.types.is_list(column.type):
        return [None if value is None else " ".join(map(str, value)) for value in values]
    if pa.types.is_float32(column.type):
        return [None if value is None else str(np.float32(value)) for value in values]
    return values


def _read_csv(path: Path, schema: pa.Schema) -> pa.Table:
    types = {field.name: pa.string() if pa.types.is_list(field.type) else field.type for field in schema}
    table = pyarrow.csv.read_csv(
        io.BytesIO(path.read_bytes()),
        pyarrow.csv.ReadOptions(use_threads=False),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types, null_values=[""], strings_can_be_null=True),
    )
    columns = {}
    for name in table.column_names:
        column = table[name]
        if name in ("image", "class"):  # texts that are never missing, though they may be empty
            column = pc.fill_null(column, "")
        elif name in types and pa.types.is_list(schema.field(name).type):
            column = pc.cast(pc.split_pattern(column, " "), schema.field(name).type)
        columns[name] = column
    return pa.table(columns)
