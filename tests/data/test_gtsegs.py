"""data/gtsegs.py on small files in the exact layout of gtsegs_ijcv.mat: references, a nested one for labels, (width, height)."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from gtsegs_file import pictures, write
from relevit.data.benchmarks.gtsegs import gtsegs
from relevit.errors import UserError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "gtsegs_ijcv.mat"


def test_images_and_masks_are_upright(place: Path) -> None:
    found = gtsegs(write(place))
    assert len(found) == 2 and found.names == ["00000", "00001"]
    for number, (image, mask) in enumerate(pictures()):
        sample = found[number]
        assert np.array_equal(sample.image, image) and sample.image.dtype == np.uint8
        assert np.array_equal(sample.mask, mask) and sample.mask.dtype == np.float32
        assert (sample.label, sample.ignore, sample.name) == (-1, None, f"0000{number}")


def test_no_file_and_no_hdf5(place: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        gtsegs(place)
    place.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(1000))
    with pytest.raises(UserError, match=r"gtsegs_ijcv\.mat is no HDF5 file"):
        gtsegs(place)


def test_a_file_that_is_cut_short(place: Path) -> None:
    content = write(place).read_bytes()
    for share in (0.3, 0.7, 0.98):
        place.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match="cut short"):
            gtsegs(place)


def without(key: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[key]

    return change


def fewer(file: h5py.File) -> None:
    del file["value/gt"]
    file.create_dataset("value/gt", (1, 1), dtype=h5py.ref_dtype)


def numbers(file: h5py.File) -> None:
    del file["value/img"]
    file["value/img"] = np.zeros((2, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("value/img"), "no list of references /value/img"),
        (without("value/gt"), "no list of references /value/gt"),
        (without("value"), "no list of references /value/img"),
        (numbers, "no list of references /value/img"),
        (fewer, "lists 2 images and 1 masks"),
    ],
)
def test_lists_that_are_not_there(place: Path, change: Callable[[h5py.File], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        gtsegs(write(place, change))


def no_cell(file: h5py.File) -> None:
    del file["#refs#/cell1"]
    file.create_dataset("#refs#/cell1", (1, 1), dtype=h5py.ref_dtype)
    file["value/gt"][1, 0] = file["#refs#/cell1"].ref


def labels_at_once(file: h5py.File) -> None:
    """A reference to the labels themselves, without the cell between."""
    file["value/gt"][1, 0] = file["#refs#/labels1"].ref


def replaced(key: str, values: np.ndarray) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[key]
        file[key] = values
        if "labels" in key:
            file["#refs#/cell1"][0, 0] = file[key].ref
        else:
            file["value/img"][1, 0] = file[key].ref

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_cell, "a reference is missing"),
        (labels_at_once, "a reference is missing"),
        (replaced("#refs#/labels1", np.zeros((13, 5), np.uint8)), "must be 0 and 1"),  # not turned
        (replaced("#refs#/labels1", np.full((5, 13), 2, np.uint8)), "must be 0 and 1"),
        (replaced("#refs#/image1", np.zeros((3, 5, 13), np.float64)), r"is float64 \(3, 5, 13\), expected uint8"),
        (
            replaced("#refs#/image1", np.zeros((13, 5, 3), np.uint8)),
            r"is uint8 \(13, 5, 3\), expected uint8 \(3, width",
        ),
    ],
)
def test_one_bad_image_names_itself(place: Path, change: Callable[[h5py.File], object], message: str) -> None:
    found = gtsegs(write(place, change))
    assert np.array_equal(found[0].image, pictures()[0][0])
    with pytest.raises(UserError, match=f"image 1 of .*gtsegs_ijcv.mat.*{message}"):
        found[1]


def test_damaged_bytes_are_an_error_of_the_image(place: Path) -> None:
    def compressed(file: h5py.File) -> None:
        del file["#refs#/image1"]
        noise = np.random.default_rng(0).integers(0, 256, (3, 5, 13), dtype=np.uint8)
        file.create_dataset("#refs#/image1", data=noise, chunks=True, compression="gzip", fletcher32=True)
        file["value/img"][1, 0] = file["#refs#/image1"].ref

    write(place, compressed)
    with h5py.File(place) as file:
        chunk = file["#refs#/image1"].id.get_chunk_info(0)
    content = bytearray(place.read_bytes())
    for offset in range(chunk.byte_offset, chunk.byte_offset + chunk.size):
        content[offset] ^= 255
    place.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"image 1 of .* cannot be read"):
        gtsegs(place)[1]
