# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Auto classes, image processor and pipelines: with this package, and by a checkpoint's remote code without it."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    pipeline,
)

import modeling_visreg
from modeling_visreg import (
    VISRegViTBackbone,
    VISRegViTConfig,
    VISRegViTForImageClassification,
    VISRegViTForPreTraining,
    VISRegViTImageProcessor,
    VISRegViTModel,
    image_processor_for,
    save_checkpoint,
)


CLASSES = [VISRegViTModel, VISRegViTForPreTraining, VISRegViTForImageClassification, VISRegViTBackbone]


@pytest.fixture
def photo():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_auto_classes_know_the_model(tmp_path, small_config):
    directory = save_checkpoint(VISRegViTForPreTraining(small_config()), tmp_path / "model")
    assert type(AutoConfig.from_pretrained(directory)) is VISRegViTConfig
    assert type(AutoModel.from_pretrained(directory)) is VISRegViTModel
    assert type(AutoModelForPreTraining.from_pretrained(directory)) is VISRegViTForPreTraining
    assert type(AutoModelForImageClassification.from_pretrained(directory)) is VISRegViTForImageClassification
    assert type(AutoBackbone.from_config(small_config(out_indices=[1]))) is VISRegViTBackbone


def test_importing_twice_is_safe(small_config):
    importlib.reload(modeling_visreg)
    assert type(AutoModel.from_config(small_config())) is VISRegViTModel


def test_image_processor_of_other_sizes(small_config, photo):
    processor = image_processor_for(small_config(image_size=(16, 32)))
    assert processor.size["shortest_edge"] == 37  # 32 * 256 / 224: the crop's longer side always fits
    assert processor(photo, return_tensors="pt").pixel_values.shape == (1, 3, 16, 32)
    gray = image_processor_for(small_config(num_channels=1), image_mean=[0.5], image_std=[0.5])
    pixels = gray(photo.convert("L"), return_tensors="pt").pixel_values
    assert pixels.shape == (1, 1, 32, 32)
    with pytest.raises(ValueError, match="pass image_mean and image_std for 1"):
        image_processor_for(small_config(num_channels=1))


def test_feature_extraction_pipeline(tmp_path, small_config, randomize, photo):
    model = randomize(VISRegViTModel(small_config())).eval()
    directory = save_checkpoint(model, tmp_path / "model")
    extractor = pipeline("image-feature-extraction", model=str(directory), device="cpu")
    pixels = image_processor_for(model.config)(photo, return_tensors="pt").pixel_values
    expected = model(pixels).last_hidden_state
    torch.testing.assert_close(torch.tensor(extractor(photo)), expected, atol=1e-5, rtol=0)
    pooled = extractor(photo, pool=True, return_tensors=True)
    torch.testing.assert_close(pooled, expected[:, 0], atol=1e-5, rtol=0)


def test_classification_pipeline(tmp_path, small_config, randomize, photo):
    labels = {0: "cat", 1: "dog", 2: "tench"}
    model = randomize(VISRegViTForImageClassification(small_config(id2label=labels))).eval()
    directory = save_checkpoint(model, tmp_path / "model")
    answers = pipeline("image-classification", model=str(directory), device="cpu")(photo)
    pixels = image_processor_for(model.config)(photo, return_tensors="pt").pixel_values
    scores = model(pixels).logits.softmax(-1)[0]
    assert {answer["label"]: answer["score"] for answer in answers} == pytest.approx(
        {label: scores[index].item() for index, label in labels.items()}, abs=1e-5
    )


# Where torchvision cannot be imported. Not `from transformers`: up to 5.17 that asks for torchvision for any model.
WITHOUT_TORCHVISION = """
import sys

sys.modules["torchvision"] = None  # as if it were not installed

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from transformers.models.auto.image_processing_auto import AutoImageProcessor
from transformers.utils import is_torchvision_available

assert not is_torchvision_available()
root, saves = sys.argv[1], sys.argv[2] == "saves"
if saves:
    from modeling_visreg import VISRegViTConfig, image_processor_for
photo = Image.open(f"{root}/photo.png")
pixels = {}
for name, image in (("rgb", photo), ("gray", photo.convert("L"))):
    if saves:
        few = {} if name == "rgb" else {"image_mean": [0.5], "image_std": [0.5]}
        config = VISRegViTConfig(image_size=32, patch_size=8, num_channels=len(image.getbands()))
        image_processor_for(config, **few).save_pretrained(f"{root}/{name}-again")
    processor = AutoImageProcessor.from_pretrained(f"{root}/{name}", trust_remote_code=True)
    pixels[name] = np.ascontiguousarray(processor(image, return_tensors="np")["pixel_values"])
save_file(pixels, f"{root}/pixels.safetensors")
"""


@pytest.mark.parametrize("package", ["saves", "absent"])
def test_image_processors_with_and_without_torchvision(tmp_path, small_config, photo, package):
    """What is saved with torchvision loads without it, and the other way round; with this package and without."""
    photo.save(tmp_path / "photo.png")
    settings = {"rgb": {}, "gray": {"image_mean": [0.5], "image_std": [0.5]}}
    for name, few in settings.items():
        config = small_config(num_channels=3 if name == "rgb" else 1)
        save_checkpoint(VISRegViTModel(config), tmp_path / name, image_processor_for(config, **few))
    command = [sys.executable, "-c", WITHOUT_TORCHVISION, str(tmp_path), package]
    done = subprocess.run(command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    without = load_file(tmp_path / "pixels.safetensors")
    for name, image in {"rgb": photo, "gray": photo.convert("L")}.items():
        folders = [tmp_path / name] + ([tmp_path / f"{name}-again"] if package == "saves" else [])
        for folder in folders:
            processor = AutoImageProcessor.from_pretrained(folder)
            assert isinstance(processor, VISRegViTImageProcessor)
            pixels = processor(image, return_tensors="pt").pixel_values
            assert pixels.shape == (1, len(image.getbands()), 32, 32)
            torch.testing.assert_close(pixels, without[name], atol=1e-6, rtol=0)


# Runs where this package cannot be imported: only transformers and the files of the checkpoint are there.
WITHOUT_THE_PACKAGE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("modeling_visreg", "visreg_training", "visreg_hub_cards"):
            raise ModuleNotFoundError(f"{name} is blocked")

sys.meta_path.insert(0, Blocker())

from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from transformers import (AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification,
                          AutoModelForPreTraining, pipeline)

try:
    import modeling_visreg
    sys.exit("the package is importable: this test would show nothing")
except ModuleNotFoundError:
    pass

root = Path(sys.argv[1])
images = load_file(root / "images.safetensors")["images"]
features = {}
for directory in sorted(path for path in root.iterdir() if path.is_dir()):
    remote = {"trust_remote_code": True}
    config = AutoConfig.from_pretrained(directory, **remote)
    assert config.model_type == "visreg_vit" and config.grid_size == (4, 4)
    model = AutoModel.from_pretrained(directory, **remote).eval()
    assert type(model).__module__.startswith("transformers_modules.")
    classifier = AutoModelForImageClassification.from_pretrained(directory, num_labels=3, **remote).eval()
    pretraining = AutoModelForPreTraining.from_pretrained(directory, **remote).eval()
    processor = AutoImageProcessor.from_pretrained(directory, **remote)
    assert processor.crop_size["height"] == 32
    pooled = model(**processor(str(root / "16-bit.png"), return_tensors="pt")).pooler_output
    extract = pipeline("image-feature-extraction", model=str(directory), pool=True, device="cpu", **remote)
    assert torch.allclose(extract(str(root / "16-bit.png"), return_tensors=True), pooled, atol=1e-5)
    pixels = load_file(root / "images.safetensors")["pixels"]
    assert torch.equal(processor(str(root / "16-bit.png"), return_tensors="pt").pixel_values, pixels)
    features[directory.name] = model(images).pooler_output.contiguous()
    assert torch.equal(classifier.vit(images).pooler_output, features[directory.name])
    assert torch.equal(pretraining([images[None]]).features[0], features[directory.name])
    processor.save_pretrained(root / directory.name / "again")
    model.save_pretrained(root / directory.name / "again")  # loaded from remote code, a copy carries it on
    again = AutoModel.from_pretrained(root / directory.name / "again", **remote).eval()
    assert torch.equal(again(images).pooler_output, features[directory.name])
    twice = pipeline("image-feature-extraction", model=str(root / directory.name / "again"), pool=True, **remote)
    assert torch.allclose(twice(str(root / "16-bit.png"), return_tensors=True).cpu(), pooled, atol=1e-5)
    assert classifier(images).logits.shape == (2, 3)
save_file(features, root / "features.safetensors")
"""


def test_remote_code_works_without_the_package(tmp_path, small_config, randomize):
    root, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    images = torch.rand(2, 3, 16, 24)
    Image.fromarray(np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16)).save(root / "16-bit.png")
    pixels = image_processor_for(small_config())(str(root / "16-bit.png"), return_tensors="pt").pixel_values
    save_file({"images": images, "pixels": pixels.contiguous()}, root / "images.safetensors")
    expected = {}
    for model_class in CLASSES:
        model = randomize(model_class(small_config(num_labels=3))).eval()
        save_checkpoint(model, root / model_class.__name__)
        base = AutoModel.from_pretrained(root / model_class.__name__).eval()
        expected[model_class.__name__] = base(images).pooler_output
    home = {"HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(root)],
        cwd=elsewhere,
        env=os.environ | home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    features = load_file(root / "features.safetensors")
    assert features.keys() == expected.keys()
    for name, feature in features.items():
        assert torch.equal(feature, expected[name]), name
    assert list(Path(tmp_path / "modules").rglob("modeling_visreg.py"))


TOO_OLD = """
import sys
import transformers

transformers.__version__ = "5.11.0"
from transformers.dynamic_module_utils import get_class_from_dynamic_module

if sys.argv[2] == "AutoModel":
    transformers.AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
else:
    get_class_from_dynamic_module(sys.argv[2], sys.argv[1])
"""


@pytest.mark.parametrize("asked", ["AutoModel", "modeling_visreg.VISRegViTModel"])
def test_an_older_transformers_is_told_which_one_is_needed(tmp_path, small_config, asked):
    directory = save_checkpoint(VISRegViTModel(small_config()), tmp_path / "model")
    minimum = json.loads((directory / "config.json").read_text())["minimum_transformers_version"]
    home = {"HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", TOO_OLD, str(directory), asked]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | home, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: VISReg ViT checkpoints need transformers {minimum} or newer, this is 5.11.0: "
        f"pip install 'transformers>={minimum}'"
    )
    # setup.py asks for what the checkpoints ask for.
    assert f'"transformers>={minimum}"' in (Path(__file__).parents[2] / "setup.py").read_text()
