"""What a run over image files is given: the images with their names, sizes and batches; the user's own masks; exclusions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from PIL import ExifTags, Image

from relevit.data.checks import has_object, in_parallel
from relevit.data.image_map import in_batches
from relevit.data.listing import list_images
from relevit.data.pairing import pair
from relevit.data.reading import read_lines
from relevit.errors import UserError
from relevit.images import read_image, read_mask
from relevit.masking.run.state import ImageFile

Size = tuple[int, int]
_HEADERS = 8  # threads that read sizes
_TURNED = (5, 6, 7, 8)  # EXIF orientations that swap the sides


def mask_name(name: str) -> str:
    """The mask's name for an image's: the same with the ending .png."""
    return str(PurePosixPath(name).with_suffix(".png"))


def find_images(paths: Sequence[Path], out: Path, only: Collection[str] | None = None) -> list[ImageFile]:
    """The images to do, sorted by name; names as `make_masks` says, of folders those in `only` alone.

    Raises UserError for a path that is not there, a folder without images, and an `out` in which images lie.
    """
    folders = [path for path in paths if path.is_dir()]
    images: dict[str, ImageFile] = {}
    for path in paths:
        if path.is_dir():
            files = list_images(path)
            if not files:
                raise UserError(f"The folder {path} holds no images.")
            if out.resolve().is_relative_to(path.resolve()):
                raise UserError(f"{out} lies in the folder of images {path}: choose an --out of its own, beside it.")
            top = Path(path.resolve().name) if len(folders) > 1 else Path()
            pairs = [(file, (top / file.relative_to(path)).as_posix()) for file in files]
            pairs = [(file, name) for file, name in pairs if only is None or name in only]
        elif path.is_file():
            pairs = [(path, path.name)]
        else:
            raise UserError(f"There is no image or folder {path}.")
        for file, name in pairs:
            other = images.setdefault(name, ImageFile(file, name))
            if other.source.resolve() != file.resolve():
                raise UserError(
                    f"{other.source} and {file} would have the same mask: give them one after the other, with two --out."
                )
            if len(name.splitlines()) != 1 or any("\ud800" <= letter <= "\udfff" for letter in name):
                raise UserError(
                    f"The name {str(file)!r} holds characters that cannot be written down: rename the file."
                )
    return [images[name] for name in sorted(images)]


def check_clashes(names: Sequence[str]) -> None:
    """Raise UserError for two images that would have one mask."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(mask_name(name), name)
        if other != name:
            raise UserError(
                f"{other} and {name} would have the same mask: give each image of a folder a name of its own."
            )


def read_sizes(images: Sequence[ImageFile]) -> dict[str, Size | None]:
    """Width and height of every image, upright, from its header; None where it cannot be read."""

    def upright_size(image: ImageFile) -> Size | None:
        try:
            with Image.open(image.source) as picture:
                turned = picture.getexif().get(ExifTags.Base.Orientation) in _TURNED
                return (picture.height, picture.width) if turned else picture.size
        except Exception:  # whatever the decoder stumbles over: the error for the user is made by reading the picture
            try:
                return read_image(image.source).size
            except UserError:
                return None

    sizes = in_parallel(upright_size, images, _HEADERS)
    return {image.name: size for image, size in zip(images, sizes, strict=True)}


def make_batches(
    images: Sequence[ImageFile],
    sizes: Mapping[str, Size | None],
    batch_size: int,
    seen_at: Callable[[int, int], Size],
) -> list[Sequence[ImageFile]]:
    """Images of one size for the backbone, at most `batch_size` of them; those without a size come last."""
    groups: dict[Size, list[ImageFile]] = {}
    for image in images:
        size = sizes[image.name]
        groups.setdefault((0, 0) if size is None else seen_at(*size), []).append(image)
    ordered = [groups[key] for key in sorted(groups, key=lambda key: (key == (0, 0), key))]
    return [batch for group in ordered for batch in in_batches(group, batch_size)]


def find_overrides(folder: Path, sizes: Mapping[str, Size]) -> tuple[dict[str, Path], list[str]]:
    """The user's own masks, by their images' names, and those that belong to no image.

    sizes: (width, height) of each image. Raises UserError that names every mask which cannot be read, has another size
    than its image, or no object.
    """
    found: dict[str, Path] = {}
    unused, faults = [], []
    for path, names in pair(sizes, list_images(folder), folder).images_of.items():
        if not names:
            unused.append(path.relative_to(folder).as_posix())
            continue
        other = found.setdefault(names[0], path)
        if other != path:
            faults.append(f"{other} and {path} are for the same image")
    for name, path in found.items():
        try:
            mask = read_mask(path)
        except UserError as error:
            faults.append(str(error).rstrip("."))
            continue
        width, height = sizes[name]
        if mask.shape != (height, width):
            faults.append(f"{path} is {mask.shape[1]} x {mask.shape[0]}, its image {width} x {height}")
        elif not has_object(mask):
            faults.append(f"{path} has no object (no pixel of 128 or more)")
    if faults:
        raise UserError(
            "Masks of the override folder cannot be used, mend or remove them: " + "; ".join(sorted(faults))
        )
    return found, sorted(unused)


def read_excluded(files: Iterable[Path], names: Iterable[str]) -> set[str]:
    """The names in files of one name a line. Raises UserError for one that is no image's."""
    known, excluded = set(names), set[str]()
    for file in files:
        for line in read_lines(file, "names of images to exclude, one a line"):
            line = line if line in known else line.strip()
            if line not in known:
                raise UserError(
                    f"{file} excludes {line!r}, which is no image here: write names as in the first column of masks.csv."
                )
            excluded.add(line)
    return excluded
