"""The built-in benchmark: splits, backgrounds, exact masks, and sets that are the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from relevit.data.builtin import digits as bench
from relevit.data.builtin.textures import SEEN_FAMILIES, UNSEEN_FAMILIES, Texture, draw, habitat, random_texture


def numbers_of(objects: bench.Objects, count: int) -> np.ndarray:
    return np.random.default_rng(3).permutation(len(objects.labels))[:count]


def test_digits_are_split_once_and_never_shared() -> None:
    parts = {split: bench.draw_objects(split, 2) for split in ("train", "validation", "test")}
    digits = {split: {a.tobytes() for a in part.alpha[:-20]} for split, part in parts.items()}
    assert [len(part.alpha) - 20 for part in parts.values()] == [1197, 200, 400]
    assert not digits["train"] & digits["test"]
    assert not digits["train"] & digits["validation"]
    assert not digits["validation"] & digits["test"]
    shapes = {split: {a.tobytes() for a in part.alpha[-20:]} for split, part in parts.items()}
    assert not shapes["train"] & shapes["test"]


def test_glyphs_are_the_digits_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    data, ours = load_digits(), bench.handwriting()
    assert np.bincount(ours.labels).tolist() == np.bincount(data.target).tolist()
    # Shrunk to 8 x 8 again, a glyph is nearest to some original of the same class.
    import cv2

    originals = data.images.reshape(len(data.images), -1) / 16
    for i in range(0, 1797, 211):
        small = cv2.resize(ours.alpha[i][2:-2, 2:-2], (8, 8), interpolation=cv2.INTER_AREA).ravel()
        nearest = np.argmax(originals @ small / np.linalg.norm(originals, axis=1))
        assert data.target[nearest] == ours.labels[i]


def test_masks_are_exact() -> None:
    """Outside the mask a picture is its background to the bit; inside it is not; the object is drawn with the mask."""
    texture = habitat(7, len(bench.CLASSES), np.random.default_rng(5))
    objects = bench.draw_objects("train", 1)
    image, mask = bench.compose_picture(objects.alpha[13], texture, bench.View(), np.random.default_rng(17))
    background = np.round(draw(texture, bench.SIZE, np.random.default_rng(17)) * 255).astype(np.uint8)
    np.testing.assert_array_equal(image[mask == 0], background[mask == 0])
    changed = np.abs(image.astype(int) - background).sum(-1)
    assert (changed[mask > 0.9] > 20).mean() > 0.95
    assert 0.01 < (mask > 0.5).mean() < 0.5


@pytest.mark.parametrize("name", bench.TEST_SETS)
@pytest.mark.quick_where(lambda name: name == "background_shuffled")
def test_sets_are_reproducible_and_balanced(name: str) -> None:
    one = bench.test_set(name, "test", 1)
    bench.test_set.cache_clear()
    two = bench.test_set(name, "test", 1)
    np.testing.assert_array_equal(one.images, two.images)
    assert len(one) == 800
    assert np.bincount(one.labels).min() >= 25
    assert (one.masks.reshape(len(one), -1).max(1) > 0.5).all()


def test_a_part_of_a_set_holds_the_same_pictures() -> None:
    objects = bench.draw_objects("test", 3)
    numbers = numbers_of(objects, 23)
    whole = bench.draw_pictures(objects, numbers, "other", (1, 2))
    part = bench.draw_pictures(objects, numbers[:7], "other", (1, 2))
    np.testing.assert_array_equal(whole.images[:7], part.images)
    np.testing.assert_array_equal(whole.subset(np.array([5, 3])).masks, part.masks[[5, 3]])


def test_backgrounds_are_what_the_sets_say() -> None:
    own = bench.test_set("in_distribution", "test", 1)
    assert abs((own.backgrounds == own.labels).mean() - bench.RELIABILITY) < 0.03
    other = bench.test_set("background_shuffled", "test", 1)
    assert (other.backgrounds != other.labels).all() and (other.backgrounds >= 0).all()
    assert len(set(other.backgrounds)) == len(bench.CLASSES)
    rng = np.random.default_rng(0)
    families = {bench.background("unseen", 3, rng)[0].family for _ in range(60)}
    assert families == set(UNSEEN_FAMILIES)
    assert not families & set(SEEN_FAMILIES)


def test_views_change_one_thing() -> None:
    def tall(name: str) -> np.ndarray:
        masks = bench.test_set(name, "test", 1).masks > 0.5
        return masks.any(2).sum(1)

    assert tall("size").std() > 1.5 * tall("rotation").std()
    border = bench.test_set("location", "test", 1).masks > 0.5
    edges = (border[:, :6], border[:, -6:], border[:, :, :6], border[:, :, -6:])
    near = np.any([edge.any((1, 2)) for edge in edges], axis=0)
    assert near.mean() > 0.9


def test_rotation_turns_by_at_most_its_angle() -> None:
    bar = np.zeros((bench.GLYPH, bench.GLYPH), np.float32)
    bar[4:28, 14:18] = 1  # upright

    def lean(view: bench.View, seed: int) -> float:
        mask = bench.place(bar, view, np.random.default_rng(seed))
        y, x = np.nonzero(mask > 0.5)
        _, vectors = np.linalg.eigh(np.cov(np.stack([x, y])))
        main = vectors[:, 1]
        return float(np.degrees(np.arctan2(main[0], main[1]) % np.pi))

    def off(angle: float) -> float:
        return min(angle, 180 - angle)

    straight = [off(lean(bench.View(), seed)) for seed in range(41)]
    turned = [off(lean(bench.VIEWS["rotation"], seed)) for seed in range(41)]
    assert max(straight) < 32
    assert np.mean(turned) > 1.4 * np.mean(straight)
    assert max(turned) < 50


def test_samples_are_drawn_by_seed_from_set_a() -> None:
    a, again, b = (bench.training_samples(3, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.images, again.images)
    assert (a.images != b.images).any()
    assert sorted(set(a.labels.tolist())) == list(bench.SET_A)
    assert np.bincount(a.labels)[list(bench.SET_A)].tolist() == [3] * len(bench.SET_A)
    held_out = bench.validation_samples(5)
    assert not set(held_out.labels.tolist()) & set(bench.SET_A)
    sample = a[2]
    assert sample.image.dtype == np.uint8 and sample.mask.shape == (bench.SIZE, bench.SIZE)
    assert sample.label == a.labels[2]


@pytest.mark.parametrize("family", SEEN_FAMILIES + UNSEEN_FAMILIES)
def test_textures_fill_the_picture_with_both_colours(family: str) -> None:
    rng = np.random.default_rng(11)
    dark, light = np.zeros(3, np.float32), np.ones(3, np.float32)
    drawn = random_texture(rng, (family,))
    texture = Texture(family, 5.0, drawn.angle, drawn.phase, 2.0, (dark, light))
    picture = draw(texture, 47, rng)
    assert picture.shape == (47, 47, 3) and picture.dtype == np.float32
    assert picture.min() < 0.2 and picture.max() > 0.8 and 0.1 < picture.mean() < 0.9


def test_unknown_kinds_are_errors() -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        bench.background("nowhere", 0, np.random.default_rng(0))
