# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg search`: the right photos, never the query itself, and never the features of another model or folder."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from modeling_visreg import VISRegViTConfig, VISRegViTModel, save_checkpoint
from visreg_training.commands import search
from visreg_training.errors import UserError


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Windows of two scenes, and a file that is no image; the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VISREG_CACHE", str(tmp_path / "cache"))
    Path("photos").mkdir()
    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        for number in range(8):
            left, top = 40 * number, 23 * number
            Image.fromarray(pixels).crop((left, top, left + 240, top + 200)).save(f"photos/{name}{number}.jpg")
    Path("photos/broken.jpg").write_bytes(b"no image")
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = VISRegViTConfig(
            hidden_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=32, patch_size=4
        )
        save_checkpoint(VISRegViTModel(config), f"model{seed}")


def found(capsys, *flags: str) -> list[str]:
    search.main(["--dataset", "photos", "--k", "3", *flags])
    return re.findall(r"\d\.\d{3}  photos/(\w+)\.jpg", capsys.readouterr().out)


def test_the_nearest_show_the_same_scene_and_never_the_query(photos, capsys):
    queries = ["--query", "photos/china0.jpg", "photos/../photos/flower7.jpg"]
    names = found(capsys, "--model", "model0", *queries)
    assert [name[:-1] for name in names] == ["china"] * 3 + ["flower"] * 3
    assert not {"china0", "flower7"} & set(names)
    assert Image.open("neighbors.png").size == (4 * 158 + 6, 2 * 176 + 6)
    names = found(capsys, "--model", "model0", "--output", "six.png")  # 6 of the folder itself
    assert len(names) == 18 and Image.open("six.png").size[1] == 6 * 176 + 6


def test_another_model_or_folder_is_embedded_anew(photos, capsys):
    query = ["--query", "photos/china0.jpg"]
    first = found(capsys, "--model", "model0", *query)
    assert found(capsys, "--model", "model0", *query) == first and len(list(Path("cache").rglob("*.safetensors"))) == 1
    found(capsys, "--model", "model1", *query)
    Image.open("photos/china0.jpg").save("photos/copy.jpg", quality=100)
    assert found(capsys, "--model", "model0", *query)[0] == "copy"
    assert len(list(Path("cache").rglob("*.safetensors"))) == 3


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--model", "out"], "there is no model 'out': no folder of that name, and ids on the Hub"),
        (["--model", "model0", "--query", "photos/broken.jpg"], "--query photos/broken.jpg cannot be read: not_image"),
        (["--model", "model0", "--query", "gone.jpg"], "--query gone.jpg cannot be read: missing"),
        (["--model", "model0", "--output", "near.jpg"], "--output ends in .png"),
        (["--model", "model0", "--k", "0"], "k must be above 0"),
        (["--query", "a.jpg"], "required: --model"),
    ],
)
def test_mistakes_are_one_line(photos, flags, words):
    with pytest.raises(UserError, match=words):
        search.main(["--dataset", "photos", *flags])
