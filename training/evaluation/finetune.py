# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of the whole network by transformers' Trainer: mixup, cutmix, layer-wise learning rates.

B images, C classes. Nothing is chosen: the weights of the last epoch are tested, once.
"""

import re
import time
from argparse import ArgumentParser, Namespace
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset
from torchvision.transforms import v2
from transformers import AutoModelForImageClassification, Trainer, TrainingArguments, get_cosine_schedule_with_warmup

from ..backbones import TransformersBackbone, open_backbone
from ..data import MultiCrop
from ..data.decode import open_image
from ..seeding import image_generator
from .features import FeatureSettings, readable
from .results import make_result
from .task import Outcome, Sources, judge, label_map
from .transform import EvaluationTransform, normalise, transform_for


RECIPES = Path(__file__).parent.parent / "recipes" / "finetune"
_BLOCK = re.compile(r"\.layers?\.(\d+)\.")
_SPARED = ("cls_token", "position_embeddings", "mask_token", "register_tokens")  # of weight decay, as 1-D ones are


@dataclass(frozen=True)
class FinetuneSettings:
    """Defaults for small data sets and a ViT-S; recipes/finetune has those for a ViT-B. The paper gives none.

    Attributes:
        learning_rate: of the head for a batch of 256, scaled with it; block i of L has layer_decay ** (L - i) of it.
        drop_path: of the network while it is fine-tuned.
        mixup, cutmix: parameter of the Beta distribution, 0 for none; with both, one of them is drawn for each batch.
        batch_size: images a process.
    """

    epochs: int = 50
    warmup_epochs: float = 5
    learning_rate: float = 5e-4
    weight_decay: float = 0.05
    layer_decay: float = 0.75
    drop_path: float = 0.1
    mixup: float = 0.8
    cutmix: float = 1.0
    label_smoothing: float = 0.1
    batch_size: int = 64
    image_size: int | None = None
    num_workers: int = 4
    seed: int = 0

    def __post_init__(self):
        if self.epochs < 1 or self.batch_size < 1 or self.learning_rate <= 0:
            raise ValueError("epochs and batch_size must be at least 1, learning_rate above 0")
        if not 0 < self.layer_decay <= 1 or not 0 <= self.drop_path < 1 or not 0 <= self.label_smoothing < 1:
            raise ValueError("layer_decay is in (0, 1], drop_path and label_smoothing are in [0, 1)")
        if min(self.mixup, self.cutmix, self.warmup_epochs, self.weight_decay, self.num_workers) < 0:
            raise ValueError("mixup, cutmix, warmup_epochs, weight_decay and num_workers must not be negative")


def add_finetune_options(parser: ArgumentParser) -> None:
    parser.add_argument("--config", help="recipe: a YAML file, or `vit_base` for ours; flags override it")
    for spec in fields(FinetuneSettings):
        kind = int if spec.name == "image_size" else spec.type
        parser.add_argument(f"--{spec.name}", type=kind, help=f"(default {spec.default})")


def settings_of(options: Namespace) -> FinetuneSettings:
    """Defaults, then the recipe, then flags.

    Raises:
        ValueError: the recipe is missing or has an unknown key.
    """
    names = [spec.name for spec in fields(FinetuneSettings)]
    values = {}
    if options.config:
        ours = RECIPES / f"{options.config}.yaml"
        path = ours if ours.is_file() else Path(options.config)
        if not path.is_file():
            raise ValueError(f"config: there is no recipe {options.config!r}")
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or (unknown := set(values) - set(names)):
            raise ValueError(f"config: {path.name} has unknown keys {sorted(unknown)}; known are {', '.join(names)}")
    return FinetuneSettings(
        **values | {name: value for name in names if (value := getattr(options, name)) is not None}
    )


def finetune(options: Namespace, sources: Sources) -> dict[str, Any] | None:
    """From parsed options to a result, on the main process; the network is saved in the output folder.

    Raises:
        ValueError: the model or the data is not what the protocol needs.
    """
    settings = settings_of(options)
    if sources.train_share is not None or not (sources.train.is_map_style and sources.test.is_map_style):
        raise ValueError("fine-tuning reads two splits at random: use --streaming false")
    frozen = open_backbone(options.model, options.trust_remote_code)
    if not isinstance(frozen, TransformersBackbone):
        raise ValueError("fine-tuning takes models that AutoModelForImageClassification opens; convert timm's first")
    transform, described = transform_for(frozen, settings.image_size), frozen.description()
    if transform.size[0] != transform.size[1]:
        raise ValueError(f"augmented crops are square, the model takes {transform.size}: give --image_size")
    names = class_names(sources)
    network = open_classifier(frozen.module.config, options, settings, names)
    started = time.perf_counter()
    train = Images(sources.train, transform, settings.seed, augmented=True)
    test = Images(sources.test, transform, settings.seed, label_map(names, sources.test.label_names))
    trainer = make_trainer(network, train, settings, transform, len(names), options.output)
    trainer.train()
    outcome = tested(trainer, test, settings)
    trainer.accelerator.wait_for_everyone()
    if not trainer.is_world_process_zero():
        return None
    save(network, options.output / "model")
    outcome.settings = asdict(settings) | {"optimizer": "AdamW, cosine", "weights": "last epoch"}
    outcome.settings["left_out"] = {"train": train.left_out, "test": test.left_out}
    seconds = {"total": time.perf_counter() - started}
    return make_result(
        "finetune", outcome, described, sources.descriptions(), {"transform": transform.description()}, seconds
    )


def class_names(sources: Sources) -> list[str]:
    """Names of the classes, or their numbers.

    Raises:
        ValueError: there are no labels, or several an image.
    """
    if sources.train.label_names:
        return sources.train.label_names
    labels = [sources.train.example(index).label for index in range(sources.train.num_examples)]
    if any(isinstance(label, list) for label in labels) or all(label is None for label in labels):
        raise ValueError("fine-tuning needs one class an image; name its column with --label_column")
    return [str(number) for number in range(max(label for label in labels if label is not None) + 1)]


def open_classifier(config: Any, options: Namespace, settings: FinetuneSettings, names: list[str]) -> nn.Module:
    """The network with a new head, its drop path set."""
    path = options.model
    if (Path(path) / "model" / "config.json").is_file() and not (Path(path) / "config.json").is_file():
        path = str(Path(path) / "model")
    extra = {"drop_path_rate": settings.drop_path} if hasattr(config, "drop_path_rate") else {}
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    return AutoModelForImageClassification.from_pretrained(
        path, trust_remote_code=options.trust_remote_code, dtype=torch.float32, **labels, **extra
    )


class Images(Dataset):
    """uint8 pixels and labels: a random resized crop and flip, new with every reading, or the test transform.

    Every image is read once beforehand: those that cannot be read or have no class are left out.

    Attributes:
        numbers: of the other images, in the source; left_out: how many were left out.

    Raises:
        ValueError: no image is left, or too many cannot be read.
    """

    def __init__(self, source, transform: EvaluationTransform, seed: int, mapping=None, augmented: bool = False):
        self.source, self.transform, self.seed, self.mapping = source, transform, seed, mapping
        self.crop = MultiCrop(num_global=1, num_local=0, global_size=transform.size[0], global_scale=(0.08, 1.0))
        self.augmented = augmented
        self.numbers = [
            number
            for number, _pixels, label, _id in readable(transform, source, FeatureSettings())
            if isinstance(label, int) and label >= 0
        ]
        self.left_out = source.num_examples - len(self.numbers)
        if not self.numbers:
            raise ValueError(f"{source.name}, split {source.split}: no image has one class; name its --label_column")

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> dict[str, Any]:
        raw = self.source.example(self.numbers[index])
        opened = open_image(raw.data, raw.path)
        label = raw.label if self.mapping is None else self.mapping[raw.label]
        if not self.augmented:
            return {"pixels": self.transform(opened.load()), "label": label, "augmented": False}
        # The Trainer seeds each worker anew in every epoch.
        draw = int(torch.randint(2**31, ()))
        (view,) = self.crop.from_opened(opened, image_generator(self.seed, draw, raw.key))
        return {"pixels": view, "label": label, "augmented": True}


class Collator:
    """Normalises; mixes training images. `labels` are (B, C) when mixed, else (B,)."""

    def __init__(self, settings: FinetuneSettings, transform: EvaluationTransform, num_classes: int):
        mixers = [v2.MixUp(alpha=settings.mixup, num_classes=num_classes)] if settings.mixup else []
        mixers += [v2.CutMix(alpha=settings.cutmix, num_classes=num_classes)] if settings.cutmix else []
        self.mix = v2.RandomChoice(mixers) if mixers else None
        self.transform = transform

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pixels = normalise(torch.stack([item["pixels"] for item in items]), self.transform.mean, self.transform.std)
        labels = torch.tensor([item["label"] for item in items])
        if self.mix is not None and items[0]["augmented"]:
            pixels, labels = self.mix(pixels, labels)
        return {"pixel_values": pixels, "labels": labels}


def make_trainer(
    network, train: Images, settings: FinetuneSettings, transform, num_classes: int, folder: Path
) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        max_grad_norm=1.0,
        seed=settings.seed,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="epoch",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=settings.num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
    )

    def loss(outputs, labels, num_items_in_batch=None) -> torch.Tensor:
        return functional.cross_entropy(outputs.logits, labels, label_smoothing=settings.label_smoothing)

    batch = settings.batch_size * arguments.world_size * max(1, arguments.n_gpu)
    steps = -(-len(train) // batch)
    optimizer = torch.optim.AdamW(parameter_groups(network, settings, settings.learning_rate * batch / 256))
    warmup = round(settings.warmup_epochs * steps)
    scheduler = get_cosine_schedule_with_warmup(optimizer, warmup, settings.epochs * steps)
    collator = Collator(settings, transform, num_classes)
    return Trainer(
        model=network, args=arguments, train_dataset=train, data_collator=collator, compute_loss_func=loss,
        optimizers=(optimizer, scheduler),
    )  # fmt: skip


def parameter_groups(network: nn.Module, settings: FinetuneSettings, learning_rate: float) -> list[dict[str, Any]]:
    """One group for each depth and weight decay: embeddings are depth 0, block i is i + 1, norm and head the last."""
    blocks = [int(found[1]) for name, _ in network.named_parameters() if (found := _BLOCK.search(name))]
    top = max(blocks, default=-1) + 2
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        decays = parameter.ndim > 1 and not name.endswith(_SPARED)
        depth = depth_of(name, top)
        group = groups.setdefault((depth, decays), {"params": [], "weight_decay": settings.weight_decay * decays})
        group["lr"] = learning_rate * settings.layer_decay ** (top - depth)
        group["params"].append(parameter)
    return list(groups.values())


def depth_of(name: str, top: int) -> int:
    if found := _BLOCK.search(name):
        return int(found[1]) + 1
    return 0 if "embeddings" in name or name.endswith(_SPARED) else top


def tested(trainer: Trainer, test: Images, settings: FinetuneSettings) -> Outcome:
    """The result on the test images; the Trainer counts images once that processes see twice."""
    prediction = trainer.predict(test)
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return judge(torch.from_numpy(logits).float(), torch.from_numpy(prediction.label_ids), settings.seed)


def save(network: nn.Module, folder: Path) -> None:
    """A directory that AutoModelForImageClassification reads."""
    from modeling_visreg import save_checkpoint

    if network.config.model_type == "visreg_vit":
        save_checkpoint(network, folder, overwrite=True)
    else:
        network.save_pretrained(folder)
