"""report/overlays.py: which file becomes which overlay, what is in it, and that nothing is overwritten."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from relevit.errors import UserError
from relevit.explainers import relevance
from relevit.explainers.overlays import Job, overlay_jobs, side_by_side, write_overlays
from relevit.models.view import evaluation_view

CONFIG = {
    "input_size": (3, 24, 40),
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
    "interpolation": "bilinear",
    "crop_pct": 1.0,
}


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=(24, 40), patch_size=8, embed_dim=12, depth=2, num_heads=3, num_classes=7
    ).eval()


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (40, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def test_tree_of_a_folder_is_kept(tmp_path: Path) -> None:
    for name in ("b/deep/x.png", "a/x.png", "y.jpg"):
        picture(tmp_path / "in" / name)
    jobs = overlay_jobs([tmp_path / "in"], tmp_path / "out")
    assert [job.overlay.relative_to(tmp_path / "out").as_posix() for job in jobs] == [
        "a/x.png",
        "b/deep/x.png",
        "y.png",
    ]


def test_names_that_would_collide(tmp_path: Path) -> None:
    one, other = picture(tmp_path / "a" / "x.png"), picture(tmp_path / "a" / "x.bmp")
    assert [job.overlay.name for job in overlay_jobs([one, other], tmp_path / "o")] == ["x_png.png", "x_bmp.png"]
    picture(tmp_path / "b" / "x.png")
    jobs = overlay_jobs([tmp_path / "a", tmp_path / "b"], tmp_path / "o")
    assert {job.overlay.relative_to(tmp_path / "o").as_posix() for job in jobs} == {
        "a/x_bmp.png",
        "a/x_png.png",
        "b/x.png",
    }
    with pytest.raises(UserError, match="both become"):
        overlay_jobs([tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"], tmp_path / "o")
    assert overlay_jobs([one, one], tmp_path / "o") == [Job(one, tmp_path / "o" / "x.png")]


def test_an_overlay_never_replaces_its_picture(tmp_path: Path) -> None:
    one = picture(tmp_path / "x.png")
    with pytest.raises(UserError, match="overwrite the picture"):
        overlay_jobs([one], tmp_path)


def test_missing_and_empty_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.jpg"):
        overlay_jobs([tmp_path / "nothing.jpg"], tmp_path)
    with pytest.raises(UserError, match="no pictures"):
        overlay_jobs([tmp_path], tmp_path / "o")


def test_raw_map_is_the_relevance_of_the_patches(model: torch.nn.Module, tmp_path: Path) -> None:
    files = [picture(tmp_path / f"{seed}.png", seed) for seed in range(3)]
    view = evaluation_view(CONFIG)
    results = list(write_overlays(model, view, overlay_jobs(files, tmp_path / "o"), target=5, raw=True, batch_size=2))
    images = torch.stack([view(Image.open(file)) for file in files])
    expected = relevance(model, images, 5, upscale=False, normalize=False)
    assert [result.predicted for result in results] == model(images).argmax(1).tolist()
    assert [result.target for result in results] == [5, 5, 5]
    for result, patches, image in zip(results, expected, images, strict=True):
        assert result.map_file is not None
        saved = np.load(result.map_file)
        assert saved.shape == (3, 5) and saved.dtype == np.float32
        np.testing.assert_allclose(saved, patches.detach().numpy(), rtol=1e-4, atol=1e-9)
        shown = np.asarray(Image.open(result.overlay))
        one = relevance(model, image[None], 5)[0].detach().numpy()
        assert np.abs(shown.astype(int) - side_by_side(np.asarray(Image.open(result.source)), one)).max() <= 1


def test_left_is_the_picture_right_is_brighter_where_relevant() -> None:
    image = np.full((24, 40, 3), 90, np.uint8)
    image[:, 7] = 130
    relevance_map = np.zeros((24, 40), np.float32)
    relevance_map[3:11, 5:29] = 1.0
    shown = side_by_side(image, relevance_map)[::5, ::5]  # enlarged five times
    np.testing.assert_array_equal(shown[:, :40], image)
    right = shown[:, -40:].astype(int).sum(axis=2)
    assert right[3:11, 5:29].min() > right[relevance_map == 0].max()


def test_existing_files_are_refused_before_anything_is_written(model: torch.nn.Module, tmp_path: Path) -> None:
    files = [picture(tmp_path / "a.png"), picture(tmp_path / "b.png", 1)]
    jobs = overlay_jobs(files, tmp_path / "o")
    jobs[1].overlay.parent.mkdir()
    jobs[1].overlay.write_text("mine")
    with pytest.raises(UserError, match=r"b\.png is there already"):
        write_overlays(model, evaluation_view(CONFIG), jobs)
    assert not jobs[0].overlay.exists() and jobs[1].overlay.read_text() == "mine"
    list(write_overlays(model, evaluation_view(CONFIG), jobs, overwrite=True))
    assert jobs[1].overlay.read_bytes()[:4] == b"\x89PNG"


def test_unreadable_picture_is_reported_and_the_rest_done(model: torch.nn.Module, tmp_path: Path) -> None:
    good, bad = picture(tmp_path / "a.png"), tmp_path / "b.png"
    bad.write_bytes(b"not a picture")
    results = list(
        write_overlays(
            model, evaluation_view(CONFIG), [Job(bad, tmp_path / "o/b.png"), Job(good, tmp_path / "o/a.png")]
        )
    )
    assert [result.fault is None for result in results] == [False, True]
    assert "b.png" in str(results[0].fault) and not (tmp_path / "o/b.png").exists() and (tmp_path / "o/a.png").exists()
