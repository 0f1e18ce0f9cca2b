# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Pictures: what they show is what was computed, and each command writes one."""

import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from visreg_training.backbones import open_backbone
from visreg_training.commands import visualize
from visreg_training.errors import UserError
from visreg_training.evaluation.reports import pictures
from visreg_training.evaluation.reports.drawing import read_images


def test_colors_are_principal_components():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(16, 3, generator=generator)).Q
    factors = torch.randn(3, 12 * 9, generator=generator) * torch.tensor([9.0, 5.0, 2.0])[:, None]
    (colors,) = pictures.pca_colors([(basis @ factors).view(16, 12, 9)])
    assert colors.shape == (12, 9, 3) and colors.min() == 0 and colors.max() == 1
    flat = colors.reshape(-1, 3)
    inside = (flat > 0).all(1) & (flat < 1).all(1)
    for channel in range(3):
        correlation = np.corrcoef(flat[inside, channel], factors[channel].numpy()[inside])[0, 1]
        assert abs(correlation) > 0.9


def test_frames_share_a_basis_and_images_may_have_their_own():
    maps = list(torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0)))
    doubled = pictures.pca_colors([maps[0], maps[0], maps[1]])
    assert np.array_equal(doubled[0], doubled[1])
    apart = pictures.pca_colors(maps, shared=False)
    assert np.allclose(apart[0], pictures.pca_colors(maps[:1])[0])
    assert not np.allclose(apart[0], pictures.pca_colors(maps)[0])


def test_images_of_any_size_are_fitted_to_the_patch(checkpoint):
    model = open_backbone(checkpoint)
    assert pictures.fitted(Image.new("RGB", (301, 200)), model, 32).size == (48, 32)
    (tokens,) = pictures.patch_maps(model, [Image.new("RGB", (301, 200))], 32)
    assert tokens.shape == (32, 8, 12)


def test_a_strip_is_shown_in_its_middle(checkpoint, tmp_path):
    """All of 2 x 60,000 pixels would be 7.5 million patches, each of which attends to each; it hung for hours."""
    photos = tmp_path / "photos"
    photos.mkdir()
    strip = Image.new("RGB", (2, 60_000), "red")
    strip.paste("blue", (0, 29_900, 2, 30_100))
    strip.save(photos / "strip.jpg", quality=100, subsampling=0)
    strip.transpose(Image.Transpose.ROTATE_90).save(photos / "wide.png")
    backbone = open_backbone(checkpoint)
    fitted = pictures.fitted(Image.open(photos / "strip.jpg"), backbone, None)
    assert fitted.size == (16, 64) and fitted.getpixel((8, 32))[2] > 200
    for kind in ("pca", "attention"):
        out = tmp_path / f"{kind}.png"
        visualize.main([kind, "--model", checkpoint, "--images", str(photos), "--output", str(out)])
        assert out.is_file()
        out.unlink()


def test_captions_name_no_folder_of_this_machine(checkpoint, tmp_path, monkeypatch):
    model, folder = open_backbone(checkpoint), os.path.dirname(checkpoint)
    assert os.path.isabs(model.name)
    drawn = []
    monkeypatch.setattr(pictures.ImageDraw.ImageDraw, "text", lambda self, place, text, fill: drawn.append(text))
    photo = Image.new("RGB", (16, 16))
    pictures.write_pca([model], [photo], tmp_path / "pca.png")
    pictures.write_attention([model], [photo], tmp_path / "attention.png")
    pictures.write_pca_frames(model, [photo], tmp_path / "frames")
    assert drawn == ["image", "tiny", "image", "tiny", "frame", "tiny"]
    monkeypatch.chdir(checkpoint)
    names = {
        ".": "tiny", f"timm:vit_tiny_patch16_224:{checkpoint}/config.json": "timm:vit_tiny_patch16_224:config.json",
        "facebook/dinov2-small": "facebook/dinov2-small", "timm:vit_tiny_patch16_224": "timm:vit_tiny_patch16_224",
        f"{folder}/": os.path.basename(folder),
    }  # fmt: skip
    for model.name, shown in names.items():
        assert pictures.caption(model) == shown


def test_what_is_not_attended_to_is_dark():
    weights = np.zeros((4, 4))
    weights[:2] = 1.0
    shown = np.asarray(pictures.overlay(Image.new("RGB", (64, 64), "white"), weights))
    assert shown[:16].mean() > 250 and shown[-16:].mean() < 60


def test_confusions_are_counted_by_rows(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: drawn.append(figure))
    pictures.write_confusion(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0]), ["a", "b", "c"], tmp_path / "x.png")
    (axes,) = drawn[0].axes
    assert axes.images[0].get_array().tolist() == [[0.5, 0.5, 0], [0, 1, 0], [1, 0, 0]]
    assert axes.get_title() == "50.0 % of 4 images"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("pca", ["--count", "3"]),
        ("pca", ["--count", "2", "--each", "--image_size", "32"]),
        ("attention", ["--count", "3"]),
        ("map", ["--limit", "80"]),
        ("confusion", ["--limit", "80"]),
        ("neighbors", ["--limit", "80", "--count", "3", "--k", "4"]),
    ],
)
def test_every_picture_is_one_command(checkpoint, tmp_path, kind, options):
    out = tmp_path / "out.png"
    cache = ["--cache_dir", str(tmp_path)] if kind not in ("pca", "attention") else []
    visualize.main([kind, "--model", checkpoint, "--dataset", "digits", *options, *cache, "--output", str(out)])
    with Image.open(out) as image:
        assert min(image.size) > 100 and len(np.unique(np.asarray(image.convert("L")))) > 20


def test_models_stand_side_by_side_and_frames_are_written_one_by_one(checkpoint, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        Image.effect_noise((40, 30), 60).convert("RGB").save(frames / f"{number}.jpg")
    arguments = ["pca", "--model", checkpoint]
    visualize.main([*arguments, checkpoint, "--images", str(frames), "--output", str(tmp_path / "two.png")])
    with Image.open(tmp_path / "two.png") as image:
        cells = 3 * (pictures.CELL + 6) + 6
        assert image.width == cells
    visualize.main([*arguments, "--frames", str(frames), "--output", str(tmp_path / "video")])
    assert [path.name for path in sorted((tmp_path / "video").iterdir())] == ["00000.png", "00001.png", "00002.png"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["portrait"], "there is no picture 'portrait'"),
        (["pca", "--output", "x.png"], "--images"),
        (["pca", "--dataset", "digits", "--output", "x.jpg"], "ends in .png"),
        (["map", "--dataset", "digits", "--output", "x.png", "--method", "umap"], "umap-learn"),
        (["map", "--dataset", "digits", "--output", "x.png", "--limit", "3"], "at least 5"),
        (["pca", "--images", "EMPTY", "--output", "x.png"], "no images"),
    ],
)
def test_mistakes_end_in_one_line(checkpoint, tmp_path, monkeypatch, argv, words):
    monkeypatch.setitem(sys.modules, "umap", None)  # as where it is not installed
    empty = tmp_path / "empty"
    empty.mkdir()
    cache = ["--cache_dir", str(tmp_path)] if argv[0] == "map" else []
    rest = [str(empty) if word == "EMPTY" else word for word in argv[1:]]
    with pytest.raises(UserError, match=words):
        visualize.main([argv[0], "--model", checkpoint, *rest, *cache])


@pytest.mark.parametrize("splits", [("train", "val"), ("",)])
def test_neighbors_need_no_flag_and_never_find_the_query(checkpoint, tmp_path, splits):
    """A folder with val/ in the place of test/, and one without splits and labels, of which each finds the others."""
    random = np.random.default_rng(0)
    for split in splits:
        (tmp_path / "photos" / split).mkdir(parents=True, exist_ok=True)
        for number in range(5):
            pixels = random.integers(0, 255, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / split / f"{number}.png")
    folder = str(tmp_path / "photos")
    arguments = ["neighbors", "--model", checkpoint, "--dataset", folder, "--count", "2", "--cache_dir", str(tmp_path)]
    visualize.main([*arguments, "--k", "9", "--output", str(tmp_path / "near.png")])
    width = Image.open(tmp_path / "near.png").width
    pictures_in_a_row = (width - 6) // (112 + 6)
    assert pictures_in_a_row == (1 + 4 if splits == ("",) else 1 + 5)


def test_pictures_are_taken_of_subfolders_without_what_cannot_be_read(tmp_path, caplog):
    (tmp_path / "a/b").mkdir(parents=True)
    Image.new("RGB", (9, 8), (1, 2, 3)).save(tmp_path / "a/b/good.png")
    (tmp_path / "a/bad.png").write_bytes(b"no image")
    (image,) = read_images([tmp_path], 4)
    assert image.size == (9, 8) and "bad.png" in caplog.text
    (tmp_path / "a/b/good.png").unlink()
    with pytest.raises(ValueError, match="none of the 1 images"):
        read_images([tmp_path], 4)
