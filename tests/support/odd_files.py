"""A small data set with every oddity of real ones: what is odd about each image or mask, and what is to come of it.

`build(root)` writes root/images/CLASS/NAME, root/masks/CLASS/NAME.png and root/classes.json, and returns a list of `Odd`.
"""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 13, 19
ORIENTATION = 0x0112  # of EXIF
COMPOSED, DECOMPOSED = "Käfer ü", unicodedata.normalize("NFD", "Käfer ü")
CLASSES = {"cow": 0, COMPOSED: 1, "linked": 2, "hollow": 3}


class Odd(NamedTuple):
    """name: of the image below its root. fault: its kind, or None for what is read. picture: (height, width, 3) as it
    must be read, within `tolerance` grey levels. mask: (height, width) in [0, 1] as it must be read."""

    name: str
    fault: str | None = None
    picture: np.ndarray | None = None
    mask: np.ndarray | None = None
    tolerance: int = 0


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Smooth colours that differ along both axes; no two seeds give the same."""
    y, x = np.mgrid[:height, :width]
    return np.stack([20 + 9 * x + seed, 30 + 15 * y, 245 - 6 * x - 5 * y - seed], axis=-1).astype(np.uint8)


def mask(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """0 and 1: a rectangle off the middle, in another place for each seed."""
    values = np.zeros((height, width), np.uint8)
    top, left = 2 + seed % 5, 3 + seed % 7
    values[top : top + 5, left : left + 9] = 1
    return values


def save(path: Path, values: np.ndarray | Image.Image, **options: object) -> Path:
    """Write a picture; JPEG as well as it can be, so that colours are within 3 levels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    if path.suffix.lower() in (".jpg", ".jpeg") and "format" not in options:
        options = {"quality": 100, **({"subsampling": 0} if image.mode != "L" else {}), **options}
    image.save(path, **options)
    return path


def orientation(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = number
    return exif


def palette(indices: np.ndarray, colours: list[int]) -> Image.Image:
    """A picture of mode P: indices (height, width) into colours (r, g, b, r, g, b, ...)."""
    image = Image.new("P", indices.shape[::-1])
    image.putdata(indices.astype(np.uint8).ravel().tolist())
    image.putpalette(colours)
    return image


def build(root: Path) -> list[Odd]:
    """Write everything; the returned list has an entry for every image that is found, good or bad."""
    images, masks = root / "images", root / "masks"
    found: list[Odd] = []

    def good(
        name: str,
        stored: np.ndarray | Image.Image | None = None,
        seen: np.ndarray | None = None,
        stored_mask: np.ndarray | Image.Image | None = None,
        seen_mask: np.ndarray | None = None,
        mask_name: str | None = None,
        tolerance: int = 0,
        **options: object,
    ) -> None:
        """An image that is stored as given and seen (read) as `seen`, with its mask."""
        seed = len(found)
        stored = picture(seed) if stored is None else stored
        seen = np.asarray(stored) if seen is None else seen
        seen_mask = mask(seed, *seen.shape[:2]) if seen_mask is None else seen_mask
        save(images / name, stored, **options)
        place = masks / (mask_name or str(Path(name).with_suffix(".png")))
        save(place, seen_mask.astype(np.uint8) * 255 if stored_mask is None else stored_mask)
        found.append(Odd(name, None, seen, seen_mask.astype(np.float32), tolerance))

    def bad(name: str, fault: str) -> tuple[Path, Path]:
        """A good pair, for the caller to spoil: the paths of image and mask."""
        seed = len(found)
        found.append(Odd(name, fault))
        pair = images / name, masks / Path(name).with_suffix(".png")
        return save(pair[0], picture(seed)), save(pair[1], 255 * mask(seed))

    _good_images(good)
    _good_masks(good)
    _links(root, good)
    _bad(bad)
    _by_the_way(root)
    (root / "classes.json").write_text(json.dumps(CLASSES), encoding="utf-8")
    return found


def _good_images(good: object) -> None:
    """What cameras, scanners and converters write."""
    assert callable(good)
    good("cow/plain.png")
    good("cow/colours.jpg", picture(1), picture(1), tolerance=3)
    grey = picture(2)[..., 0]
    good("cow/grey.jpg", grey, np.stack([grey] * 3, -1), tolerance=2)
    inks = Image.fromarray(255 - picture(3)).convert("RGB").split()  # C, M, Y are what red, green, blue lack
    cmyk = Image.merge("CMYK", [*inks, Image.new("L", (WIDTH, HEIGHT))])
    good("cow/cmyk.jpg", cmyk, picture(3), tolerance=4)
    good("cow/sixteen bits.png", grey.astype(np.uint16) * 257, np.stack([grey] * 3, -1))
    indices = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 3
    colours = [200, 30, 40, 10, 220, 60, 70, 80, 250]
    shown = np.array(colours, np.uint8).reshape(3, 3)[indices]
    good("cow/palette.png", palette(indices, colours), shown)
    turned = np.roll(indices, 1)
    transparent = palette(turned, colours)
    good(
        "cow/palette transparent.png",
        transparent,
        np.roll(shown.reshape(-1, 3), 1, 0).reshape(shown.shape),
        transparency=1,
    )
    first, second = palette(np.roll(indices, 2), colours), palette(indices, colours[::-1])
    good(
        "cow/animated.gif",
        first,
        np.roll(shown.reshape(-1, 3), 2, 0).reshape(shown.shape),
        save_all=True,
        append_images=[second],
    )
    good("cow/turned.jpg", np.rot90(picture(8)), picture(8), exif=orientation(6), tolerance=3)
    good("cow/LOUD.JPG", picture(9), picture(9), mask_name="cow/LOUD.PNG", tolerance=3)
    good("cow/png by heart.JPEG", format="PNG")
    garbled = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0\x01\0\0\0"  # five entries announced, half of one there
    good("cow/garbled exif.jpg", picture(11), picture(11), exif=garbled, tolerance=3)
    good("cow/a b  c.d.png")
    good(f"{COMPOSED}/é 画.png", mask_name=unicodedata.normalize("NFD", f"{COMPOSED}/é 画.png"))
    good(f"{COMPOSED}/{unicodedata.normalize('NFD', 'ö')}.png", mask_name=f"{COMPOSED}/ö.png")


def _good_masks(good: object) -> None:
    """Masks as annotation programs write them."""
    assert callable(good)
    seen = mask(3)
    good("cow/mask 0 1.png", stored_mask=seen, seen_mask=seen)
    good("cow/mask 0 255.png", stored_mask=255 * seen, seen_mask=seen)
    good("cow/mask bits.png", stored_mask=Image.fromarray(seen > 0), seen_mask=seen)
    good("cow/mask bool 16.png", stored_mask=seen.astype(np.uint16), seen_mask=seen)
    good("cow/mask 16 bits.png", stored_mask=seen.astype(np.uint16) * 65535, seen_mask=seen)
    half = np.where(seen > 0, 26214, 0).astype(np.uint16) + (mask(4) > 0) * np.uint16(39321)
    good("cow/mask soft 16.png", stored_mask=half, seen_mask=half / np.float32(65535))
    good("cow/mask palette.png", stored_mask=palette(seen, [0, 0, 0, 255, 255, 255]), seen_mask=seen)
    good("cow/mask backward palette.png", stored_mask=palette(1 - seen, [255, 255, 255, 0, 0, 0]), seen_mask=seen)
    alpha = np.dstack([picture(7), 255 * seen])
    good("cow/mask alpha.png", stored_mask=alpha, seen_mask=seen)
    good("cow/mask rgb.png", stored_mask=np.dstack([255 * seen] * 3), seen_mask=seen)
    good("cow/mask all.png", stored_mask=np.full_like(seen, 255), seen_mask=np.ones_like(seen))
    inverted = 1 - mask(0, HEIGHT, WIDTH)
    inverted[4:9, 6:13] = 0
    good("cow/mask inverted.png", stored_mask=255 * inverted, seen_mask=inverted)


def _links(root: Path, good: object) -> None:
    """A class folder that is a link; the link is there before its images."""
    assert callable(good)
    (root / "elsewhere").mkdir(parents=True)
    (root / "images/linked").symlink_to(root / "elsewhere")
    good("linked/a.png")


def _bad(bad: object) -> None:
    """Pairs of which no run can make anything; each has one fault."""
    assert callable(bad)
    for name in ("cow/cut.jpg", "cow/cut off.png"):
        image, _ = bad(name, "unreadable image")
        save(image, np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
        image.write_bytes(image.read_bytes()[:-300])
    bad("cow/text.jpg", "unreadable image")[0].write_text("<html>404 Not Found</html>")
    bad("cow/nothing.jpg", "unreadable image")[0].write_bytes(b"")
    image, _ = bad("cow/link to nowhere.png", "unreadable image")
    image.unlink()
    image.symlink_to("gone.png")
    bad("cow/mask missing.png", "missing mask")[1].unlink()
    _, place = bad("cow/mask cut.png", "unreadable mask")
    noise = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    place.write_bytes(save(place, noise).read_bytes()[:-150])
    bad("cow/mask text.png", "unreadable mask")[1].write_text("no picture")
    bad("cow/mask nothing.png", "unreadable mask")[1].write_bytes(b"")
    save(bad("cow/mask coloured.png", "unreadable mask")[1], picture(5))
    save(bad("cow/mask zero.png", "empty mask")[1], 0 * mask())
    save(bad("cow/mask of ids.png", "empty mask")[1], 7 * mask())
    save(bad("cow/mask small.png", "mask of another size")[1], 255 * mask(height=HEIGHT - 2))
    image, place = bad("cow/turned, mask as stored.jpg", "mask of another size")
    save(image, np.rot90(picture(6)), exif=orientation(6))
    save(place, np.rot90(255 * mask(6)))
    bad("emu/1.png", "unknown class")
    bad("stray.png", "unknown class")


def _by_the_way(root: Path) -> None:
    """Files that are no samples, and a class without any."""
    images, masks = root / "images", root / "masks"
    for name in (".DS_Store", "cow/.DS_Store", "cow/._plain.png", "cow/Thumbs.db", "cow/notes.txt"):
        (images / name).write_bytes(b"\0\1")
    (images / ".cache").mkdir()
    (images / ".cache/x.png").write_bytes(b"no picture")
    (images / "hollow").mkdir()
    (images / "hollow/read me.txt").touch()
    save(masks / "cow/without image.png", 255 * mask())
