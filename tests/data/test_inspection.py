"""inspection.py: what is measured of one image and its mask as they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inspected_pictures import HEIGHT, WIDTH, mask, picture
from odd_files import orientation, save
from relevit.data.inspection import inspect_pair, mask_figures, stored_traits


def test_the_figures_of_a_mask() -> None:
    values = np.zeros((7, 11), np.float32)  # middle ninth: rows 2 to 4, columns 3 to 7
    values[0, :] = 1  # 11 of the 32 pixels of the border
    values[1, 1] = 0.5  # foreground, and soft
    values[3, 3:5] = 0.96  # 2 of the 15 in the middle
    values[3, 5:7] = 0.04  # as good as background, and as small as a class id
    values[5, 3:8] = 0.3
    found = mask_figures(values)
    assert found.pixels == 14 and found.share == pytest.approx(14 / 77)
    assert found.border == pytest.approx(11 / 32) and found.centre == pytest.approx(2 / 15)
    assert found.soft == pytest.approx(6 / 19)  # 0.5 and 0.3, among 0.3, 0.5, 0.96 and 1
    assert found.ids == pytest.approx(2 / 21)
    assert mask_figures(values).digest == found.digest
    values[6, 10] = 0.001
    assert mask_figures(values).digest != found.digest
    assert mask_figures(values.reshape(11, 7)).digest != mask_figures(values).digest
    assert mask_figures(np.ones((1, 2), np.float32)).border == 1 == mask_figures(np.ones((1, 2), np.float32)).centre


def test_a_pair_is_measured_as_it_is_read(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", picture(0))
    turned = save(tmp_path / "t.png", np.rot90(picture(0)), exif=orientation(6))
    place = save(tmp_path / "m.png", mask())
    found, other = inspect_pair(image, place), inspect_pair(turned, place)
    assert found.fault is None and found.image is not None and found.mask is not None and other.image is not None
    assert found.image.size == (WIDTH, HEIGHT) == other.image.size and found.image.digest == other.image.digest
    assert found.image.traits == () and other.image.traits == ("turned by EXIF",)
    assert found.mask.pixels == 812 and other.mask == found.mask
    text = tmp_path / "text.png"
    text.write_text("none")
    assert inspect_pair(text, place)[1:] == (None, None)
    bad = inspect_pair(image, text)
    assert bad.fault is not None and bad.fault.kind == "unreadable mask" and bad.image == found.image
    assert bad.mask is None


@pytest.mark.parametrize(
    ("mode", "ending", "traits"),
    [
        ("RGB", "jpg", ()),
        ("L", "jpg", ("grey",)),
        ("1", "png", ("grey",)),
        ("I;16", "png", ("grey", "16 bits")),
        ("LA", "png", ("grey", "alpha channel")),
        ("RGBA", "png", ("alpha channel",)),
        ("P", "png", ("palette",)),
        ("CMYK", "jpg", ("CMYK",)),
    ],
)
def test_how_pictures_are_stored(mode: str, ending: str, traits: tuple[str, ...], tmp_path: Path) -> None:
    values = Image.fromarray(picture(0))
    if mode == "I;16":
        stored = Image.fromarray(picture(0)[..., 0].astype(np.uint16) * 257)
    else:
        stored = values.convert(mode)
    assert stored_traits(save(tmp_path / f"a.{ending}", stored)) == traits


def test_an_animation_is_told(tmp_path: Path) -> None:
    frames = [Image.fromarray(picture(seed)) for seed in (0, 1)]
    path = save(tmp_path / "a.webp", frames[0], save_all=True, append_images=frames[1:])
    assert stored_traits(path) == ("animated",)
    assert stored_traits(save(tmp_path / "b.gif", frames[0])) == ("palette",)
