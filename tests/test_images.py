"""Reading pictures and masks: every mode of colour, orientation, and clear errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relevit.data.listing import list_images
from relevit.errors import UserError
from relevit.images import (
    label_mask,
    mask_values,
    read_alpha,
    read_image,
    read_label_map,
    read_labels,
    read_mask,
)

HEIGHT, WIDTH = 7, 11


def colours(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def save(path: Path, values: np.ndarray | Image.Image, **options: object) -> Path:
    picture = values if isinstance(values, Image.Image) else Image.fromarray(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def test_rgb_is_read_as_it_is(tmp_path: Path) -> None:
    picture = read_image(save(tmp_path / "ein Bild ä 画.png", colours()))
    assert picture.mode == "RGB"
    assert np.array_equal(np.asarray(picture), colours())


def test_grey_and_one_bit_get_three_equal_channels(tmp_path: Path) -> None:
    grey = colours()[..., 0]
    assert np.array_equal(np.asarray(read_image(save(tmp_path / "a.png", grey))), np.stack([grey] * 3, -1))
    bits = Image.fromarray(grey > 99)
    assert set(np.unique(np.asarray(read_image(save(tmp_path / "b.png", bits))))) == {0, 255}


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    grey = np.array([[0, 257, 65535, 25700]], dtype=np.uint16)
    assert np.asarray(read_image(save(tmp_path / "a.png", grey)))[0, :, 0].tolist() == [0, 1, 255, 100]


def test_cmyk_and_palette_keep_their_colours(tmp_path: Path) -> None:
    red = Image.new("RGB", (WIDTH, HEIGHT), (200, 30, 40))
    for name, picture in (("a.jpg", red.convert("CMYK")), ("b.png", red.quantize(4))):
        found = np.asarray(read_image(save(tmp_path / name, picture))).astype(int)
        assert found.shape == (HEIGHT, WIDTH, 3)
        assert np.abs(found - (200, 30, 40)).max() <= 12


def test_alpha_is_dropped_without_blending(tmp_path: Path) -> None:
    values = np.dstack([colours(), np.zeros((HEIGHT, WIDTH), np.uint8)])
    assert np.array_equal(np.asarray(read_image(save(tmp_path / "a.png", values))), colours())


@pytest.mark.parametrize(("orientation", "turn"), [(3, lambda v: v[::-1, ::-1]), (6, lambda v: np.rot90(v, -1))])
def test_the_exif_orientation_is_applied(orientation: int, turn: object, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", colours(), exif=exif)
    assert np.array_equal(np.asarray(read_image(path)), turn(colours()))  # type: ignore[operator]
    alpha = np.dstack([colours(), colours(1)[..., 0]])
    path = save(tmp_path / "b.png", alpha, exif=exif)
    assert np.allclose(read_mask(path) * 255, turn(alpha[..., 3]))  # type: ignore[operator]


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.jpg", np.random.default_rng(0).integers(0, 256, (97, 89, 3), dtype=np.uint8))
    short = tmp_path / "short one.jpg"
    short.write_bytes(whole.read_bytes()[:2000])
    text = tmp_path / "text.png"
    text.write_text("no picture")
    empty = tmp_path / "empty.png"
    empty.touch()
    broken = tmp_path / "broken.png"
    broken.write_bytes(save(tmp_path / "b.png", colours()).read_bytes()[:60])
    for path in (short, text, empty, broken, tmp_path / "absent.png", tmp_path):
        with pytest.raises(UserError, match=path.name):
            read_image(path)


def test_masks_are_scaled_and_one_is_the_object(tmp_path: Path) -> None:
    grey = np.array([[0, 255, 51]], dtype=np.uint8)
    mask = read_mask(save(tmp_path / "a.png", grey))
    assert mask.dtype == np.float32
    assert np.allclose(mask, [[0, 1, 0.2]])
    assert read_mask(save(tmp_path / "b.png", np.array([[0, 1, 1]], dtype=np.uint8))).tolist() == [[0, 1, 1]]
    assert np.allclose(
        read_mask(save(tmp_path / "c.png", np.array([[0, 65535, 13107]], dtype=np.uint16))), [[0, 1, 0.2]]
    )
    assert read_mask(save(tmp_path / "d.png", Image.fromarray(grey > 99))).tolist() == [[0, 1, 0]]
    assert np.allclose(read_mask(save(tmp_path / "e.png", np.stack([grey] * 3, -1))), [[0, 1, 0.2]])


def test_a_mask_is_the_alpha_where_anything_is_transparent(tmp_path: Path) -> None:
    grey, alpha = np.array([[0, 255, 255]], dtype=np.uint8), np.array([[255, 0, 51]], dtype=np.uint8)
    assert np.allclose(read_mask(save(tmp_path / "a.png", np.dstack([grey, alpha]))), [[1, 0, 0.2]])
    opaque = np.dstack([grey, np.full_like(alpha, 255)])
    assert read_mask(save(tmp_path / "b.png", opaque)).tolist() == [[0, 1, 1]]
    with pytest.raises(UserError, match=r"b\.png is opaque"):
        read_alpha(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"c\.png has no alpha"):
        read_alpha(save(tmp_path / "c.png", grey))


def test_a_coloured_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.png is a coloured picture"):
        read_mask(save(tmp_path / "a.png", colours()))


@pytest.mark.parametrize(
    "values", [np.array([[0.0, 1.5]]), np.array([[np.nan]]), np.array([[-1]]), np.zeros((2, 3, 5))]
)
def test_impossible_mask_values_are_refused(values: np.ndarray) -> None:
    with pytest.raises(UserError, match="mask"):
        mask_values(values)


def test_pictures_are_sorted_by_name_without_hidden_ones(tmp_path: Path) -> None:
    names = ["b/2.PNG", "b/10.jpg", "a c/ü.jpeg", "a/x.webp", "z.png"]
    for name in reversed(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("._z.png", "a/notes.csv", ".hidden/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert found == ["a c/ü.jpeg", "a/x.webp", "b/10.jpg", "b/2.PNG", "z.png"]
    with pytest.raises(UserError, match="no folder"):
        list_images(tmp_path / "absent")


def palette(labels: np.ndarray, colours: list[int]) -> Image.Image:
    picture = Image.fromarray(labels.astype(np.uint8)).convert("L")
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette(colours)
    return picture


def test_a_palette_with_colours_is_a_label_map(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2, 255], [7, 7, 0, 0]])
    voc = [0, 0, 0, 128, 0, 0, 0, 128, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 128, 128, 128]
    path = save(tmp_path / "a.png", palette(labels, voc + [9, 8, 7] * 248))
    assert read_mask(path).tolist() == [[0, 1, 1, 0], [1, 1, 0, 0]]  # the border, 255, is on neither side
    assert read_labels(path).tolist() == labels.tolist()
    assert label_mask(read_label_map(path))[1].tolist() == [[False, False, False, True], [False] * 4]
    path = save(tmp_path / "b.png", palette(labels[1:], voc))  # no colour among those that are used
    assert read_mask(path).tolist() == [[1, 1, 0, 0]]
    only_void = save(tmp_path / "c.png", palette(labels[:1] // 255 * 255, voc + [9, 8, 7] * 248))
    assert read_mask(only_void).tolist() == [[0, 0, 0, 1]]


def test_a_palette_of_greys_is_a_grey_mask(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", palette(np.array([[0, 1, 2]]), [255, 255, 255, 0, 0, 0, 51, 51, 51]))
    assert np.allclose(read_mask(path), [[1, 0, 0.2]])
    assert read_label_map(path) is None and read_labels(path).tolist() == [[0, 1, 2]]


def test_labels_are_whole_numbers(tmp_path: Path) -> None:
    assert read_labels(save(tmp_path / "a.png", np.array([[0, 300]], np.uint16))).tolist() == [[0, 300]]
    assert read_labels(save(tmp_path / "b.png", Image.fromarray(np.array([[False, True]])))).tolist() == [[0, 1]]
    with pytest.raises(UserError, match=r"c\.png has colours"):
        read_labels(save(tmp_path / "c.png", colours()))
