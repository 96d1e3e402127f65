import numpy as np
import pytest
from PIL import Image

from relevit.data.compose import Backgrounds, as_picture, best_shift, fill_object, paste
from relevit.errors import UserError

HEIGHT, WIDTH = 53, 61


def stripes() -> np.ndarray:
    """Vertical stripes: a shift down is invisible."""
    row = (np.arange(WIDTH) % 7 * 30 + 20).astype(np.uint8)
    return np.repeat(np.repeat(row[None, :, None], HEIGHT, 0), 3, 2)


def disk(y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (np.hypot(rows - y, columns - x) <= radius).astype(np.float32)


def test_fill_uses_the_picture_itself():
    """An object on stripes is covered by other pixels of the picture, and the rest stays."""
    background, mask = stripes(), disk(25, 30, 5)
    image = np.where(mask[..., None] > 0, np.uint8(255), background)
    filled = fill_object(image, mask)
    assert filled.shape == image.shape and filled.dtype == np.uint8
    assert not (filled == 255).any()
    untouched = disk(25, 30, 8) == 0
    assert (filled[untouched] == image[untouched]).all()
    colours = {tuple(c) for c in background.reshape(-1, 3)}
    assert {tuple(c) for c in filled.reshape(-1, 3)} <= colours  # nothing is invented where a shift covers all


def test_fill_covers_the_soft_rim_too():
    mask = disk(20, 20, 6)
    soft = np.where(mask > 0, mask, disk(20, 20, 8) * 0.2).astype(np.float32)
    image = np.where(soft[..., None] > 0, np.uint8(255), stripes())
    assert not (fill_object(image, soft) == 255).any()


def test_fill_paints_what_no_shift_covers():
    mask = np.ones((HEIGHT, WIDTH), np.float32)
    mask[:, :6] = 0
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    image[:, :6] = 50
    filled = fill_object(image, mask)
    assert filled.max() < 200 or abs(int(filled.mean()) - 50) < 20


def test_fill_of_nothing_and_of_everything():
    image = stripes()
    assert (fill_object(image, np.zeros((HEIGHT, WIDTH), np.float32)) == image).all()
    everything = fill_object(image, np.ones((HEIGHT, WIDTH), np.float32))
    assert (everything == np.round(image.mean((0, 1))).astype(np.uint8)).all()


def test_best_shift_against_a_search_of_all():
    covered = (disk(30, 50, 9) + disk(12, 15, 6)) > 0
    share = best_shift(covered)

    def left(down: float, right: float) -> int:
        dy, dx = round(down * HEIGHT), round(right * WIDTH)
        count = 0
        for y, x in zip(*np.nonzero(covered), strict=True):
            inside = 0 <= y - dy < HEIGHT and 0 <= x - dx < WIDTH
            count += not inside or bool(covered[y - dy, x - dx])
        return count

    grid = [k / 8 for k in range(-7, 8)]
    best = min(left(down, right) for down in grid for right in grid if (down, right) != (0, 0))
    assert left(*share) == best
    shorter = [(d, r) for d in grid for r in grid if 0 < d * d + r * r < share[0] ** 2 + share[1] ** 2 - 1e-9]
    assert all(left(*other) > best for other in shorter)


def test_paste():
    rng = np.random.default_rng(0)
    image, background = (rng.integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8) for _ in range(2))
    mask = rng.choice([0.0, 1.0, 0.3], (HEIGHT, WIDTH)).astype(np.float32)
    pasted = paste(image, mask, background)
    assert (pasted[mask == 1] == image[mask == 1]).all()
    assert (pasted[mask == 0] == background[mask == 0]).all()
    y, x = np.argwhere(mask == np.float32(0.3))[5]
    assert abs(int(pasted[y, x, 1]) - (0.3 * image[y, x, 1] + 0.7 * background[y, x, 1])) <= 0.51
    assert paste(image, mask, background[::2, ::3]).shape == image.shape  # another size is resized


def test_backgrounds_are_kept_and_agree():
    class Samples:
        asked = 0

        def __len__(self):
            return 3

        def __getitem__(self, index):
            self.asked += 1
            return Image.fromarray(stripes()), disk(20 + index, 30, 5), 0

    samples = Samples()
    backgrounds = Backgrounds(samples)
    assert (backgrounds[1] == fill_object(stripes(), disk(21, 30, 5))).all()
    first = samples.asked
    assert backgrounds[1] is backgrounds[1] and samples.asked == first


def test_errors():
    with pytest.raises(UserError, match="only in pictures"):
        as_picture(np.zeros((3, 5, 7), np.float32))
    with pytest.raises(UserError, match="mask is"):
        fill_object(stripes(), np.zeros((WIDTH, HEIGHT), np.float32))
