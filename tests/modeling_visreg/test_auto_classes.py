# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Auto classes, image processor and pipelines: with this package, and by a checkpoint's remote code without it."""

import importlib
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
    BitImageProcessor,
    BitImageProcessorPil,
    pipeline,
)

import modeling_visreg
from modeling_visreg import (
    VISRegViTBackbone,
    VISRegViTConfig,
    VISRegViTForImageClassification,
    VISRegViTForPreTraining,
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


def test_image_processor_follows_the_evaluation_protocol(tmp_path, small_config, photo):
    save_checkpoint(VISRegViTModel(VISRegViTConfig(num_hidden_layers=1)), tmp_path / "b16")
    processor = AutoImageProcessor.from_pretrained(tmp_path / "b16")
    assert isinstance(processor, BitImageProcessor)
    assert processor.size["shortest_edge"] == 256
    assert (processor.crop_size["height"], processor.crop_size["width"]) == (224, 224)
    assert processor.resample == Image.Resampling.BICUBIC
    assert tuple(processor.image_mean) == (0.485, 0.456, 0.406)
    assert tuple(processor.image_std) == (0.229, 0.224, 0.225)
    pil = AutoImageProcessor.from_pretrained(tmp_path / "b16", backend="pil")
    assert isinstance(pil, BitImageProcessorPil)
    pixels = pil(photo, return_tensors="pt").pixel_values
    resized = photo.resize((358, 256), Image.Resampling.BICUBIC).crop((67, 16, 291, 240))
    expected = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255 - torch.tensor(pil.image_mean)[:, None, None]
    expected = expected / torch.tensor(pil.image_std)[:, None, None]
    torch.testing.assert_close(pixels[0], expected, atol=1e-5, rtol=0)


def test_image_processor_of_other_sizes(small_config, photo):
    processor = image_processor_for(small_config(image_size=(16, 32)))
    assert processor.size["shortest_edge"] == 37  # 32 * 256 / 224: the crop's longer side always fits
    assert processor(photo, return_tensors="pt").pixel_values.shape == (1, 3, 16, 32)
    grey = image_processor_for(small_config(num_channels=1), image_mean=[0.5], image_std=[0.5])
    assert grey(photo.convert("L"), return_tensors="pt", input_data_format="channels_last").pixel_values.shape[1] == 1
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
    features[directory.name] = model(images).pooler_output.contiguous()
    assert torch.equal(classifier.vit(images).pooler_output, features[directory.name])
    assert torch.equal(pretraining([images[None]]).features[0], features[directory.name])
    model.save_pretrained(root / directory.name / "again")  # loaded from remote code, a copy carries it on
    again = AutoModel.from_pretrained(root / directory.name / "again", **remote).eval()
    assert torch.equal(again(images).pooler_output, features[directory.name])
    assert classifier(images).logits.shape == (2, 3)
save_file(features, root / "features.safetensors")
"""


def test_remote_code_works_without_the_package(tmp_path, small_config, randomize):
    root, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    images = torch.rand(2, 3, 16, 24)
    save_file({"images": images}, root / "images.safetensors")
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
