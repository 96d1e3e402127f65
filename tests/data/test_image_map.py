"""The map over images: what each process does, what is done again, and the commands on it in several processes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from audit_pictures import write
from file_operations import contents
from launching import finished, torchrun
from relevit.cli import main
from relevit.data.image_map import Steps, in_batches, map_images, threads, worker_processes
from relevit.errors import UserError
from relevit.processes import Processes

BATCHES = [["a", "b"], ["c"], ["d", "e"], ["f", "g"], ["h"]]


def place(rank: int, count: int) -> Processes:
    processes = Processes()
    processes.rank, processes.count = rank, count
    return processes


def mapped(done: set[str], rank: int = 0, count: int = 1, workers: int = 0, **options: Any) -> tuple[int, Any, Any]:
    read, written = [], {}
    steps = Steps[str](
        is_done=done.__contains__,
        write=written.__setitem__,
        read=lambda item: read.append(item) or item.upper(),
        compute=lambda views: [f"{view} of {''.join(views)}" for view in views],
    )
    with threads(workers) as pool:
        made = map_images(BATCHES, steps, pool, place(rank, count), **options)
    return made, read, written


@pytest.mark.parametrize("workers", [0, 3])
def test_of_a_batch_with_a_missing_image_all_are_seen(workers: int) -> None:
    seen: list[int] = []
    made, read, written = mapped({"a", "c", "f", "g"}, workers=workers, start=seen.append, advance=seen.append)
    assert made == 4 and sorted(read) == ["a", "b", "d", "e", "h"]
    assert written == {"b": "B of AB", "d": "D of DE", "e": "E of DE", "h": "H of H"}
    assert seen[0] == 4 and sum(seen[1:]) == 4


def test_processes_share_the_batches_whatever_is_done() -> None:
    for done in (set(), {"a", "b"}):
        shares = [set(mapped(done, rank, 2)[2]) for rank in range(2)]
        assert shares == [{"a", "b", "d", "e", "h"} - done, {"c", "f", "g"}]


def test_without_a_place_for_a_model_images_are_only_written() -> None:
    written: list[tuple[int, None]] = []
    steps = Steps[int](is_done=lambda number: number % 3 == 0, write=lambda *given: written.append(given))
    with threads(1) as pool:
        assert map_images(in_batches(range(1, 8), 3), steps, pool, Processes()) == 5
    assert written == [(number, None) for number in (1, 2, 4, 5, 7)]


def fail(item: int, result: None) -> None:
    if item == 2:
        raise UserError("the second")


def stop(item: int, result: None) -> None:
    import os

    os._exit(1)


@pytest.mark.slow
def test_an_error_in_a_worker_is_raised() -> None:
    steps = Steps[int](is_done=lambda number: False, write=fail)
    with pytest.raises(UserError, match="the second"), worker_processes(1) as pool:
        map_images([[1, 2, 3]], steps, pool, Processes())
    with pytest.raises(UserError, match="worker process ended unexpectedly"), worker_processes(1) as pool:
        map_images([[1, 2, 3]], Steps[int](is_done=lambda number: False, write=stop), pool, Processes())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convert", "compose"])
def test_two_processes_write_what_one_writes(name: str, tmp_path: Path) -> None:
    images, masks = write(tmp_path, 7)
    words = {
        "convert": ["convert", "png", masks, "--images", images, "--copy"],
        "compose": ["compose", "--images", images, "--masks", masks, "--size", 32, "--limit", 20],
    }[name]
    main([*map(str, words), "--out", str(tmp_path / "one")])
    command = torchrun("-m", "relevit", *words, "--out", tmp_path / "two")
    said = finished(command).stdout
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert said.count(str(tmp_path / "two")) <= 3  # one of them speaks
    if name == "compose":  # and what is missing is shared, too
        for path in list((tmp_path / "two").rglob("*.png"))[::3]:
            path.unlink()
        finished(command)
        assert contents(tmp_path / "one") == contents(tmp_path / "two")
    shutil.rmtree(tmp_path / "two")
