import numpy as np
import pytest
from PIL import Image

from relevit.data.builtin import digits
from relevit.data.composition.compose import (
    Backgrounds,
    Cutout,
    as_picture,
    best_shift,
    blend,
    box_around,
    cover,
    cropped,
    cut_out,
    fill_object,
    paste,
    put,
    scale_for,
    scaled,
    turned,
)
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


def test_blend_by_hand():
    front, back = np.full((2, 3, 3), 200.0), np.full((2, 3, 3), 40.0)
    alpha = np.array([[0, 0.25, 1], [0.5, 0.75, 0.1]])
    np.testing.assert_allclose(blend(front, alpha, back)[..., 1], 40 + 160 * alpha)


def test_hard_masks_are_softened_inwards_only():
    mask = np.zeros((7, 11), np.float32)
    mask[2:6, 3:9] = 1
    image = np.full((7, 11, 3), 100, np.uint8)
    cutout = cut_out(image, mask)
    assert (cutout.alpha[mask == 0] == 0).all() and cutout.alpha[3, 5] == 1
    assert cutout.alpha[2, 5] == pytest.approx(0.75) and cutout.alpha[2, 3] == pytest.approx(0.75**2)
    np.testing.assert_allclose(cutout.color, 100 * cutout.alpha[..., None].repeat(3, 2))
    soft = np.linspace(0, 1, 77, dtype=np.float32).reshape(7, 11)
    np.testing.assert_array_equal(cut_out(image, soft).alpha, soft)
    whole = cut_out(image, np.ones((7, 11), np.float32))
    assert (whole.alpha == 1).all()  # the border of the picture is no edge of the object


def test_cropped_keeps_the_object_and_a_rim():
    alpha = np.zeros((13, 17), np.float32)
    alpha[4:9, 6:8] = 0.5
    alpha[0, 0] = 0.01  # invisible
    box = cropped(Cutout(np.ones((13, 17, 3), np.float32) * alpha[..., None], alpha))
    assert box.alpha.shape == (7, 4) and box.color.shape == (7, 4, 3)
    assert (box.alpha[1:-1, 1:-1] == 0.5).all() and box.alpha.sum() == 5
    with pytest.raises(ValueError, match="visible"):
        cropped(Cutout(np.zeros((3, 5, 3), np.float32), np.zeros((3, 5), np.float32)))


@pytest.mark.parametrize(
    ("x", "y", "rows", "columns"),
    [
        (0.5, 0.5, (4, 7), (3, 8)),  # 3 x 5 pixels on 11 x 11: centred
        (1.5 / 11, 0.5, (4, 7), (-1, 4)),
        (0.5, 9.5 / 11, (8, 11), (3, 8)),
        (0.0, 0.0, (-1, 2), (-2, 3)),
        (1.0, 1.0, (10, 13), (9, 14)),
    ],
)
def test_the_centre_lands_at_x_and_y(x: float, y: float, rows: tuple[int, int], columns: tuple[int, int]):
    values = np.arange(15, dtype=np.float32).reshape(3, 5) + 100
    cutout = Cutout(values[..., None].repeat(3, 2), np.ones((3, 5), np.float32))
    background = np.full((11, 11, 3), 7, np.uint8)
    picture, mask = put(cutout, background, x, y)
    expected, covered = np.full((11, 11), 7), np.zeros((11, 11))
    for i in range(3):
        for j in range(5):
            row, column = rows[0] + i, columns[0] + j
            if 0 <= row < 11 and 0 <= column < 11:
                expected[row, column], covered[row, column] = values[i, j], 1
    np.testing.assert_array_equal(picture[..., 2], expected)
    np.testing.assert_array_equal(mask, covered)
    assert (background == 7).all()


def test_an_object_beyond_the_picture_changes_nothing():
    cutout = Cutout(np.ones((3, 5, 3), np.float32), np.ones((3, 5), np.float32))
    background = np.full((11, 13, 3), 7, np.uint8)
    for x, y in ((-1.0, 0.5), (2.0, 0.5), (0.5, -1.0), (0.5, 2.0)):
        picture, mask = put(cutout, background, x, y)
        assert (picture == background).all() and mask.max() == 0


def test_turns_are_counterclockwise():
    alpha = np.zeros((13, 13), np.float32)
    alpha[6, 6:11] = 1  # points to the right
    arrow = Cutout(alpha[..., None].repeat(3, 2) * 50, alpha)
    up = turned(arrow, 90)
    assert up.alpha[2:7, 6].all() and up.alpha.sum() == 5
    np.testing.assert_array_equal(turned(arrow, -270).alpha, up.alpha)
    np.testing.assert_array_equal(turned(turned(arrow, 180), 180).color, arrow.color)
    for angle in (30.0, 60.0, 89.9, 200.0, -45.0):
        slanted = turned(arrow, angle)
        height, width = slanted.alpha.shape
        y, x = np.mgrid[:height, :width]
        down = float((slanted.alpha * (y - (height - 1) / 2)).sum() / slanted.alpha.sum())
        right = float((slanted.alpha * (x - (width - 1) / 2)).sum() / slanted.alpha.sum())
        assert right == pytest.approx(2 * np.cos(np.radians(angle)), abs=0.06)
        assert down == pytest.approx(-2 * np.sin(np.radians(angle)), abs=0.06)


def test_turning_cuts_nothing_off():
    cutout = cropped(cut_out(np.full((23, 41, 3), 90, np.uint8), np.ones((23, 41), np.float32)))
    for angle in range(0, 360, 17):
        slanted = turned(cutout, angle)
        assert slanted.alpha.sum() == pytest.approx(cutout.alpha.sum(), rel=0.01)
        edge = [slanted.alpha[0], slanted.alpha[-1], slanted.alpha[:, 0], slanted.alpha[:, -1]]
        assert max(part.max() for part in edge) < 0.5


@pytest.mark.parametrize("scale", [0.21, 0.5, 1.7, 3.0])
def test_hidden_colours_never_show(scale: float):
    """Green under transparent pixels: a red object on black stays without green, however it is resized and turned."""
    image, mask = np.zeros((31, 37, 3), np.uint8), disk(15, 18, 11)[:31, :37]
    image[..., 1] = 255
    image[mask > 0] = 255, 0, 0
    cutout = scaled(turned(cropped(cut_out(image, mask)), 33), scale)
    picture, _ = put(cutout, np.zeros((127, 131, 3), np.uint8), 0.5, 0.5)
    assert picture[..., 1].max() == 0 and picture[..., 0].max() > 240
    white, _ = put(cutout, np.full((127, 131, 3), 255, np.uint8), 0.5, 0.5)
    assert (white[..., 0] >= 254).all()  # no dark rim


@pytest.mark.parametrize("area", [0.01, 0.1, 0.4])
def test_scale_for_an_area(area: float):
    cutout = cropped(cut_out(np.full((HEIGHT, WIDTH, 3), 200, np.uint8), disk(26, 30, 20)))
    _, mask = put(scaled(cutout, scale_for(cutout, area, 211 * 223)), np.zeros((211, 223, 3), np.uint8), 0.5, 0.5)
    assert mask.mean() == pytest.approx(area, rel=0.03)


def test_cover_keeps_the_aspect_and_the_centre():
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, 20:40] = 255  # the middle third is white, 20 x 20
    np.testing.assert_array_equal(cover(picture, (20, 20)), np.full((20, 20, 3), 255))
    enlarged = cover(picture, (40, 40))
    assert enlarged.shape == (40, 40, 3) and (enlarged[:, 2:-2] == 255).all()
    assert cover(picture, (7, 31)).shape == (7, 31, 3) and cover(picture, (101, 3)).shape == (101, 3, 3)
    np.testing.assert_array_equal(cover(picture, (20, 60)), picture)


def test_box_around():
    box = box_around(disk(20, 30, 5) + disk(40, 12, 3))
    expected = np.zeros((HEIGHT, WIDTH))
    expected[15:44, 9:36] = 1
    np.testing.assert_array_equal(box, expected)
    assert box_around(np.zeros((3, 5))).max() == 0


SUMS = {  # of pixel values times 1 + column % 7, over the first 40 test pictures of each set
    "in_distribution": 133871143,
    "background_shuffled": 131249479,
    "background_unseen": 140269754,
    "location": 140261973,
    "size": 139381142,
    "rotation": 139668340,
    "foreground_only": 158316637,
}


@pytest.mark.parametrize("name", digits.TEST_SETS)
def test_pictures_of_the_built_in_benchmark_stay_the_same(name: str, monkeypatch: pytest.MonkeyPatch):
    """They are blended by `blend`: to the bit as by the formula, and as the figures on record were measured on."""
    objects = digits.draw_objects("test", 3)

    def draw() -> np.ndarray:
        numbers = np.arange(0, 400, 10)
        kind, view = digits.BACKGROUND_OF_SET[name], digits.VIEWS.get(name)
        return digits.draw_pictures(objects, numbers, kind, (7, 1), view, name).images

    images = draw()
    monkeypatch.setattr(
        digits, "blend", lambda front, mask, back: mask[..., None] * front + (1 - mask[..., None]) * back
    )
    np.testing.assert_array_equal(draw(), images)
    weights = 1 + np.arange(digits.SIZE) % 7
    assert (images * weights[:, None]).sum(dtype=np.int64) == pytest.approx(
        SUMS[name], rel=1e-6
    )  # roundings may differ elsewhere
