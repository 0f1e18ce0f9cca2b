# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning: groups of parameters, mixing, and one short run on the digits."""

import dataclasses
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
from visreg_training.data import open_stream
from visreg_training.errors import UserError
from visreg_training.evaluation import run
from visreg_training.evaluation.preprocessing import transform_for
from visreg_training.evaluation.protocols import RECIPES, preset_options, read_recipe
from visreg_training.evaluation.protocols.finetune import Collator, FinetuneOptions, Images, Progress, parameter_groups
from visreg_training.evaluation.reports.results import read_result
from visreg_training.evaluation.splits import label_map, open_sources
from visreg_training.seeding import seed_of


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


@pytest.mark.cpu
def test_the_released_protocol_is_that_of_a_loop_written_here(checkpoint, colors, tmp_path, monkeypatch):
    """On the batches that the Trainer saw: optimizer, schedule, layers, head, clipping and the best epoch by hand."""
    seen, collate = [], Collator.__call__

    def recording(self, items):
        batch = collate(self, items)
        if items[0]["augmented"]:
            seen.append({name: tensor.clone() for name, tensor in batch.items()})
        return batch

    monkeypatch.setattr(Collator, "__call__", recording)
    options, _features = preset_options("finetune", "released")
    assert (options.learning_rate, options.randaugment, options.erasing) == (3e-4, (2, 9), 0.25)
    options = dataclasses.replace(options, epochs=4, warmup_epochs=1, drop_path=0.0, num_workers=0)
    backbone, sources = open_backbone(checkpoint), open_sources(colors)
    result = run.evaluate(backbone, sources, options, folder=tmp_path / "out")
    steps = 96 // 32
    assert [len(batch["labels"]) for batch in seen] == [32] * (4 * steps)

    torch.manual_seed(seed_of("finetune", 0))
    network = AutoModelForImageClassification.from_pretrained(checkpoint, num_labels=4, drop_path_rate=0.0)
    network.classifier = torch.nn.Sequential(torch.nn.BatchNorm1d(32), network.classifier)
    groups = []
    for name, parameter in network.named_parameters():
        block = next((int(part) for part in name.split(".") if part.isdigit() and ".layer." in name), None)
        below = 4 if "embeddings" in name else 0 if block is None else 3 - block  # the last of 4 blocks is undecayed
        spared = parameter.ndim == 1 or name.endswith(("cls_token", "position_embeddings"))
        groups.append({"params": [parameter], "scale": 0.75**below, "weight_decay": 0.0 if spared else 0.05})
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    peak, values, states = 3e-4 * 32 / 256, [], []
    transform = transform_for(backbone)
    test = Images(sources.test, transform, 0, label_map(sources.train.label_names, sources.test.label_names))
    held = Collator(options, transform, 4)([test[number] for number in range(len(test))])
    for step, batch in enumerate(seen):
        done = (step - steps) / (3 * steps)
        rate = peak * step / steps if step < steps else 1e-6 + (peak - 1e-6) * (1 + np.cos(np.pi * done)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        logits = network.train()(batch["pixel_values"]).logits
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, batch["labels"], label_smoothing=0.1).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % steps == 0:
            with torch.no_grad():
                logits = network.eval()(held["pixel_values"]).logits
            values.append((logits.argmax(1) == held["labels"]).float().mean().item())
            states.append(logits)
    assert [entry["value"] for entry in result["selection"]["candidates"]] == pytest.approx(values, abs=0.04)
    best = result["selection"]["chosen"]["epoch"] - 1
    saved = AutoModelForImageClassification.from_pretrained(tmp_path / "out" / "model")
    with torch.no_grad():
        torch.testing.assert_close(saved(held["pixel_values"]).logits, states[best], rtol=0, atol=2e-3)
    assert result["selection"]["on"] == "test" and result["value"] == pytest.approx(max(values))


def test_images_are_erased_and_changed_in_training_only(checkpoint):
    transform = transform_for(open_backbone(checkpoint))
    collate = Collator(FinetuneOptions(erasing=0.99, mixup=0, cutmix=0), transform, 4)
    pixels = torch.full((4, 3, 16, 16), 255, dtype=torch.uint8)
    items = [{"pixels": image, "label": label, "augmented": False} for label, image in enumerate(pixels)]
    plain = collate(items)["pixel_values"]
    erased = collate([item | {"augmented": True} for item in items])["pixel_values"]
    assert torch.equal(plain, transform.normalize(pixels)) and (erased == 0).flatten(1).any(1).sum() >= 3
    source = open_stream("digits")
    views = []
    for randaugment in ((0, 9), (2, 9)):
        torch.manual_seed(3)
        images = Images(source, transform, 0, augmented=True, randaugment=randaugment)
        views.append(torch.stack([images[number]["pixels"] for number in range(12)]))
    assert views[0].dtype == views[1].dtype == torch.uint8 and not torch.equal(*views)


def test_a_model_that_gives_no_numbers_is_refused_before_it_is_trained(checkpoint, colors, tmp_path):
    broken = open_backbone(checkpoint)
    broken.module.layernorm.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="the features of image '0' are not finite"):
        run.evaluate(broken, open_sources(colors), FinetuneOptions(epochs=1), folder=tmp_path)
    with pytest.raises(ValueError, match="96 training images make no batch of 200"):
        options = FinetuneOptions(epochs=1, head_norm="batch", batch_size=200)
        run.evaluate(open_backbone(checkpoint), open_sources(colors), options, folder=tmp_path / "other")
