# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning: groups of parameters, mixing, and one short run on the digits."""

import io

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageColumn
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from visreg_training.backbones import open_backbone
from visreg_training.commands import evaluate
from visreg_training.errors import UserError
from visreg_training.evaluation.preprocessing import transform_for
from visreg_training.evaluation.protocols import RECIPES, read_recipe
from visreg_training.evaluation.protocols.finetune import Collator, FinetuneOptions, Progress, parameter_groups
from visreg_training.evaluation.reports.results import read_result


def test_learning_rates_fall_with_depth_and_small_parameters_are_not_decayed(checkpoint):
    network = AutoModelForImageClassification.from_pretrained(checkpoint, num_labels=10)
    groups = parameter_groups(network, FinetuneOptions(layer_decay=0.5), learning_rate=1.0)
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    found = {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    vit = network.vit
    assert found[id(network.classifier.weight)] == (1.0, 0.05) and found[id(network.classifier.bias)] == (1.0, 0.0)
    assert found[id(vit.layernorm.weight)] == (1.0, 0.0)
    assert found[id(vit.encoder.layer[3].mlp.fc1.weight)] == (0.5, 0.05)
    assert found[id(vit.encoder.layer[0].mlp.fc1.weight)] == (0.5**4, 0.05)
    assert found[id(vit.embeddings.cls_token)] == (0.5**5, 0.0)
    assert found[id(vit.embeddings.position_embeddings)] == (0.5**5, 0.0)


def test_only_training_images_are_mixed(checkpoint):
    transform = transform_for(open_backbone(checkpoint))
    collate = Collator(FinetuneOptions(), transform, 4)
    pixels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    items = [{"pixels": image, "label": label, "augmented": False} for label, image in enumerate(pixels)]
    plain = collate(items)
    assert torch.equal(plain["pixel_values"], transform.normalize(pixels)) and plain["labels"].tolist() == [0, 1, 2, 3]
    torch.manual_seed(0)
    mixed = collate([item | {"augmented": True} for item in items])
    assert mixed["labels"].shape == (4, 4)
    torch.testing.assert_close(mixed["labels"].sum(1), torch.ones(4))
    assert (mixed["labels"].max(1).values < 1).any()
    unmixed = Collator(FinetuneOptions(mixup=0, cutmix=0), transform, 4)(
        [item | {"augmented": True} for item in items]
    )
    assert torch.equal(unmixed["labels"], plain["labels"])


@pytest.fixture
def colors(tmp_path) -> str:
    """Noisy pictures of four colors, the class: folders of images, of which the test split lacks the first class."""
    random = np.random.default_rng(0)
    palette = {"blue": (40, 40, 200), "green": (40, 200, 40), "gray": (120, 120, 120), "red": (200, 40, 40)}
    for split, count in (("train", 24), ("test", 9)):
        for name, color in palette.items():
            if (split, name) == ("test", "blue"):
                continue
            folder = tmp_path / "colors" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(random.normal(color, 30, (16, 16, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return str(tmp_path / "colors")


def test_finetune_command_learns_colors_and_matches_classes_by_name(checkpoint, colors, tmp_path):
    (tmp_path / "recipe.yaml").write_text("epochs: 30\nlearning_rate: 1.0e-2\nbatch_size: 32\nmixup: 0\ncutmix: 0\n")
    arguments = ["--model", checkpoint, "--dataset", colors, "--config", str(tmp_path / "recipe.yaml")]
    arguments += ["--epochs", "12", "--drop_path", "0", "--layer_decay", "1", "--warmup_epochs", "1"]
    evaluate.main(["finetune", *arguments, "--num_workers", "0", "--output", str(tmp_path / "out")])
    (path,) = (tmp_path / "out").glob("*.json")
    result = read_result(path)
    assert result["settings"]["epochs"] == 12 and result["settings"]["mixup"] == 0 and result["selection"] is None
    assert result["value"] > 0.8  # chance is a quarter; numbering by split would leave nothing right
    network = AutoModelForImageClassification.from_pretrained(tmp_path / "out" / "model")
    assert network.config.id2label == {0: "blue", 1: "gray", 2: "green", 3: "red"}


def test_the_new_head_is_drawn_from_the_seed(checkpoint, colors, tmp_path):
    """Whatever torch's generator drew before."""

    def weights(name: str, seed: int, before: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(before)
        arguments = ["--model", checkpoint, "--dataset", colors, "--epochs", "1", "--warmup_epochs", "0"]
        arguments += ["--num_workers", "0", "--seed", str(seed), "--output", str(tmp_path / name)]
        evaluate.main(["finetune", *arguments])
        return load_file(tmp_path / name / "model" / "model.safetensors")

    first, again, other = weights("a", 0, 1), weights("b", 0, 2), weights("c", 1, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_an_interrupted_fine_tuning_goes_on_with_the_same_weights(checkpoint, colors, tmp_path, monkeypatch):
    arguments = ["finetune", "--model", checkpoint, "--dataset", colors, "--epochs", "3", "--warmup_epochs", "1"]
    arguments += ["--batch_size", "32", "--num_workers", "0", "--output"]
    evaluate.main([*arguments, str(tmp_path / "unbroken")])

    def killed(self, args, state, control, **kwargs):
        if state.epoch >= 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_epoch_begin", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate.main([*arguments, str(tmp_path / "broken")])
    assert [path.name for path in (tmp_path / "broken" / "checkpoints").glob("checkpoint-*")] == ["checkpoint-6"]
    with pytest.raises(UserError, match="holds a fine-tuning that differs"):
        evaluate.main([*arguments, str(tmp_path / "broken"), "--learning_rate", "0.1"])
    evaluate.main([*arguments, str(tmp_path / "broken"), "--epochs", "3"])
    first, second = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("unbroken", "broken"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (tmp_path / "broken" / "checkpoints").exists()


def test_images_without_class_or_pixels_are_left_out_and_counted(checkpoint, tmp_path):
    features = Features({"image": ImageColumn(), "label": ClassLabel(names=["dark", "light"])})
    pictures = []
    for number in range(120):
        with io.BytesIO() as file:
            Image.new("RGB", (16, 16), (200 * (number % 2),) * 3).save(file, "PNG")
            pictures.append({"bytes": file.getvalue(), "path": None})
    pictures[7]["bytes"] = pictures[7]["bytes"][:-40]  # its header can be read
    for split in ("train", "test"):
        labels = [None if number in (10, 11, 50) else number % 2 for number in range(120)]
        shown = [{"image": picture, "label": label} for picture, label in zip(pictures, labels, strict=True)]
        path = tmp_path / "data" / f"{split}.parquet"
        path.parent.mkdir(exist_ok=True)
        Dataset.from_list(shown, features=features).to_parquet(path)
    arguments = ["--model", checkpoint, "--dataset", str(tmp_path / "data"), "--epochs", "1", "--num_workers", "0"]
    evaluate.main(["finetune", *arguments, "--output", str(tmp_path / "out")])
    (path,) = (tmp_path / "out").glob("*.json")
    result = read_result(path)
    assert result["settings"]["left_out"] == {"train": 4, "test": 4} and 0 <= result["value"] <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--config", "nowhere.yaml"], "no recipe"),
        (["--config", str(RECIPES / "digits.yaml")], "unknown keys"),
        (["--layer_decay", "0"], r"layer_decay must be in \(0, 1\]"),
        (["--model", "timm:vit_of_nobody"], "timm knows no model"),
        (["--streaming", "true"], "streaming false"),
    ],
)
def test_mistakes_are_named(checkpoint, tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        evaluate.main(["finetune", "--model", checkpoint, "--dataset", "digits", *options, "--output", str(tmp_path)])


def test_our_recipe_is_read():
    assert FinetuneOptions(**read_recipe("finetune", "vit_base")).layer_decay == 0.65
