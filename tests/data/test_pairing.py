"""Images and masks that belong together, by names alone."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
from PIL import Image

from relevit.auditing.pictures import find_pictures
from relevit.data.pairing import pair, without_masks
from relevit.masking.run.plan import find_overrides

NAME = "Käfer"
COMPOSED, DECOMPOSED = unicodedata.normalize("NFC", NAME), unicodedata.normalize("NFD", NAME)
ROOT = Path("masks")


def test_endings_accents_and_suffixes_do_not_matter() -> None:
    masks = [ROOT / f"{DECOMPOSED}/a.png", ROOT / "cow/b_mask.PNG", ROOT / "cow/c.png", ROOT / "cow/deep/d.png"]
    names = [f"{COMPOSED}/a.jpg", "cow/b.tif", "cow/d.jpg", "cow/deep/d.jpg"]
    pairing = pair(names, masks, ROOT, "_mask")
    assert pairing.mask_of == {names[0]: masks[0], names[1]: masks[1], names[3]: masks[3]}
    assert pairing.images_of == {masks[0]: [names[0]], masks[1]: [names[1]], masks[2]: [], masks[3]: [names[3]]}


def test_images_that_would_share_a_mask_are_all_told() -> None:
    pairing = pair(["a/x.png", "a/x.jpg"], [ROOT / "a/x.png"], ROOT)
    assert pairing.images_of == {ROOT / "a/x.png": ["a/x.jpg", "a/x.png"]} and len(pairing.mask_of) == 2


def test_flat_images_go_with_masks_in_class_folders() -> None:
    masks = [ROOT / "a/x.pt", ROOT / "a/y.pt"]
    assert pair(["a/y.jpg"], masks, ROOT, flat=["x.jpg", "y.jpg"]).mask_of == {"x.jpg": masks[0], "a/y.jpg": masks[1]}


def test_a_png_beside_a_picture_is_its_mask() -> None:
    names = ["a/x.jpg", "a/x.png", "a/y.png", f"{COMPOSED}.jpg", f"{DECOMPOSED}.png"]
    assert without_masks(names) == ["a/x.jpg", "a/y.png", f"{COMPOSED}.jpg"]


def test_accents_match_in_audits_and_in_masks_of_ones_own(tmp_path: Path) -> None:
    mask = np.zeros((31, 37), np.uint8)
    mask[5:20, 7:19] = 255
    for path, values in (
        (f"images/{COMPOSED}/a.png", mask[..., None].repeat(3, -1)),
        (f"masks/{DECOMPOSED}/a.png", mask),
    ):
        (tmp_path / path).parent.mkdir(parents=True)
        Image.fromarray(values).save(tmp_path / path)
    pictures = find_pictures(tmp_path / "images", tmp_path / "masks")
    assert list(pictures.names) == [f"{COMPOSED}/a.png"] and not pictures.left_out
    found, strange = find_overrides(tmp_path / "masks", {f"{COMPOSED}/a.png": (37, 31)})
    assert list(found) == [f"{COMPOSED}/a.png"] and strange == []
