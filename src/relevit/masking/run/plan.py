"""What a run over image files is to do: the images with their names, their sizes, and their batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from relevit.data.listing import list_images
from relevit.errors import UserError
from relevit.masking.run.publish import mask_name
from relevit.masking.run.state import Job, upright_size

Size = tuple[int, int]
_HEADERS = 8  # threads that read sizes


def find_jobs(paths: Sequence[Path], out: Path, names: Collection[str] | None = None) -> list[Job]:
    """The images to do, sorted by name; names as `make_masks` says, of folders those in `names` alone.

    Raises UserError for a path that is not there, a folder without images, and an `out` in which images lie.
    """
    folders = [path for path in paths if path.is_dir()]
    jobs: dict[str, Job] = {}
    for path in paths:
        if path.is_dir():
            files = list_images(path)
            if not files:
                raise UserError(f"The folder {path} holds no images.")
            if out.resolve().is_relative_to(path.resolve()):
                raise UserError(f"{out} lies in the folder of images {path}: choose an --out of its own, beside it.")
            top = Path(path.resolve().name) if len(folders) > 1 else Path()
            pairs = [(file, top / file.relative_to(path)) for file in files]
            pairs = [pair for pair in pairs if names is None or pair[1].as_posix() in names]
        elif path.is_file():
            pairs = [(path, Path(path.name))]
        else:
            raise UserError(f"There is no image or folder {path}.")
        for file, name in pairs:
            other = jobs.setdefault(name.as_posix(), Job(file, name.as_posix()))
            if other.source.resolve() != file.resolve():
                raise UserError(
                    f"{other.source} and {file} would have the same mask: give them one after the other, with two --out."
                )
            if not _can_be_listed(name.as_posix()):
                raise UserError(
                    f"The name {str(file)!r} holds characters that cannot be written down: rename the file."
                )
    return [jobs[name] for name in sorted(jobs)]


def _can_be_listed(name: str) -> bool:
    """Whether a name can stand in a line of a text file."""
    return len(name.splitlines()) == 1 and not any("\ud800" <= letter <= "\udfff" for letter in name)


def check_clashes(names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(mask_name(name), name)
        if other != name:
            raise UserError(
                f"{other} and {name} would have the same mask: give each image of a folder a name of its own."
            )


def read_sizes(jobs: Sequence[Job]) -> dict[str, Size | str]:
    """Width and height of every image, upright, or why it cannot be read."""

    def one(job: Job) -> Size | str:
        try:
            return upright_size(job.source)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(_HEADERS) as pool:
        return dict(zip([job.name for job in jobs], pool.map(one, jobs), strict=True))


def make_batches(
    jobs: Sequence[Job], sizes: Mapping[str, Size | str], batch_size: int, seen_at: Callable[[int, int], Size]
) -> list[list[Job]]:
    """Images of one size for the backbone, at most `batch_size` of them; those without a size come last."""
    groups: dict[Size, list[Job]] = {}
    for job in jobs:
        size = sizes[job.name]
        groups.setdefault((0, 0) if isinstance(size, str) else seen_at(*size), []).append(job)
    ordered = [groups[key] for key in sorted(groups, key=lambda key: (key == (0, 0), key))]
    return [group[i : i + batch_size] for group in ordered for i in range(0, len(group), batch_size)]
