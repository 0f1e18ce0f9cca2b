# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of the whole network by transformers' Trainer: mixup, cutmix, layer-wise learning rates.

B images, C classes. Nothing is chosen: the weights of the last epoch are tested, once.
"""

import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset
from torchvision.transforms import v2
from transformers import TrainerCallback

from modeling_visreg import save_checkpoint

from ...backbones import TransformersBackbone
from ...data import MultiCrop
from ...data.decode import open_image
from ...distributed import process_state, raise_on_all_ranks
from ...option import NOT_NEGATIVE, POSITIVE, Range, check_options, option
from ...progress import Track
from ...run_folder import Json, model_directory, read_json, write_json
from ...seeding import image_generator, seed_of
from ..augmented import CROP_SCALE
from ..features import readable
from ..inputs import Inputs
from ..options import AT_LEAST_ONE, FeatureOptions
from ..outcome import Outcome, score
from ..preprocessing import EvaluationTransform, transform_for
from ..splits import Sources, label_map
from . import Protocol


_BLOCK = re.compile(r"\.layers?\.(\d+)\.")
_SPARED = ("cls_token", "position_embeddings", "mask_token", "register_tokens")  # of weight decay, as 1-D ones are
_BELOW_ONE = Range(lambda value: 0 <= value < 1, "be in [0, 1)")


@dataclass(frozen=True)
class FinetuneOptions:
    """Defaults for small data sets and a ViT-S; recipes/finetune has those for a ViT-B. The paper gives none.

    Raises:
        ValueError: a value is out of range.
    """

    epochs: int = option(50, "passes over the training images", AT_LEAST_ONE)
    warmup_epochs: float = option(5, "of linear warmup", NOT_NEGATIVE)
    learning_rate: float = option(5e-4, "of the head for a batch of 256, scaled with it", POSITIVE)
    weight_decay: float = option(0.05, "of matrices; vectors, tokens and positions have none", NOT_NEGATIVE)
    layer_decay: float = option(
        0.75,
        "block i of L has layer_decay ** (L - i) of the learning rate",
        Range(lambda v: 0 < v <= 1, "be in (0, 1]"),
    )
    drop_path: float = option(0.1, "of the network while it is fine-tuned", _BELOW_ONE)
    mixup: float = option(0.8, "of its Beta distribution, 0: none; a batch has mixup or cutmix", NOT_NEGATIVE)
    cutmix: float = option(1.0, "of its Beta distribution, 0: none", NOT_NEGATIVE)
    label_smoothing: float = option(0.1, "of the cross entropy", _BELOW_ONE)
    batch_size: int = option(64, "images of an update, a process", AT_LEAST_ONE)
    image_size: int | None = option(None, "pixels of a side; default: the model's native size", AT_LEAST_ONE)
    num_workers: int = option(4, "processes that decode and crop, for each rank", NOT_NEGATIVE)
    seed: int = option(0, "of all that is drawn")

    def __post_init__(self):
        check_options(self)


def finetune(inputs: Inputs, options: FinetuneOptions) -> Outcome | None:
    """All processes train; the network is saved in model/ of the folder, if there is one.

    Until then its checkpoints/ holds the last epoch, from which an interrupted fine-tuning goes on when it is started
    again.

    Raises:
        ValueError: the model or the data is not what the protocol needs.
    """
    sources, backbone = inputs.sources, inputs.backbone
    if sources.train_share is not None or not (sources.train.is_map_style and sources.test.is_map_style):
        raise ValueError("fine-tuning reads two splits at random: use --streaming false")
    if not isinstance(backbone, TransformersBackbone):
        raise ValueError("fine-tuning takes models that AutoModelForImageClassification opens; convert timm's first")
    transform = transform_for(backbone, options.image_size)
    if transform.size[0] != transform.size[1]:
        raise ValueError(f"augmented crops are square, the model takes {transform.size}: give --image_size")
    names = class_names(sources)
    torch.manual_seed(seed_of("finetune", options.seed))  # of the new head; the Trainer seeds what follows
    network = open_classifier(backbone, options, names)
    train = Images(sources.train, transform, options.seed, augmented=True)
    test = Images(sources.test, transform, options.seed, label_map(names, sources.test.label_names))
    with tempfile.TemporaryDirectory() as scratch:  # the Trainer wants a folder, and may write nothing into it
        kept = inputs.folder / "checkpoints" if inputs.folder is not None else None
        newest = None if kept is None else claim(kept, inputs, options)
        trainer = make_trainer(network, train, options, transform, len(names), kept, scratch)
        trainer.train(resume_from_checkpoint=newest)
        outcome = tested(trainer, test, options)
        trainer.accelerator.wait_for_everyone()
    if not trainer.is_world_process_zero():
        return None
    if inputs.folder is not None:
        save(network, inputs.folder / "model")
        shutil.rmtree(inputs.folder / "checkpoints")
    outcome.settings = asdict(options) | {"optimizer": "AdamW, cosine", "weights": "last epoch"}
    outcome.settings["left_out"] = {"train": train.left_out, "test": test.left_out}
    outcome.features = {"transform": transform.description()}
    return outcome


PROTOCOL = Protocol(
    "the whole network, with transformers' Trainer", FinetuneOptions, finetune, takes_features=False, writes=True
)


def claim(folder: Path, inputs: Inputs, options: FinetuneOptions) -> str | None:
    """The newest checkpoint of the same fine-tuning in a folder, None where it begins.

    Raises:
        ValueError: the folder holds another one.
    """
    settings = {name: value for name, value in asdict(options).items() if name != "num_workers"}
    own = {"settings": settings, "weights": inputs.backbone.weights_hash, "images": inputs.sources.train.fingerprint}
    own["processes"] = process_state().num_processes
    record = folder / "finetuning.json"
    with raise_on_all_ranks():
        known = read_json(record)
        if known not in (None, own):
            raise ValueError(f"{folder} holds a fine-tuning that differs: delete it, or choose another --output")
    process_state().wait_for_everyone()
    if process_state().is_main_process and known is None:
        write_json(record, own)
    # The Trainer writes this file last.
    whole = [path.parent for path in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda path: int(path.name.rpartition("-")[2]))) if whole else None


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


def open_classifier(backbone: TransformersBackbone, options: FinetuneOptions, names: list[str]) -> nn.Module:
    """The network with a new head, its drop path set."""
    from transformers import AutoModelForImageClassification

    extra = {"drop_path_rate": options.drop_path} if hasattr(backbone.module.config, "drop_path_rate") else {}
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    return AutoModelForImageClassification.from_pretrained(
        model_directory(backbone.name),
        trust_remote_code=backbone.trust_remote_code,
        dtype=torch.float32,
        **labels,
        **extra,
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
        self.crop = MultiCrop(num_global=1, num_local=0, global_size=transform.size[0], global_scale=CROP_SCALE)
        self.augmented = augmented
        self.numbers = [
            number
            for number, _pixels, label, _id in readable(transform, source, FeatureOptions())
            if isinstance(label, int) and label >= 0
        ]
        self.left_out = source.num_examples - len(self.numbers)
        if not self.numbers:
            raise ValueError(f"{source.name}, split {source.split}: no image has one class; name its --label_column")

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Json:
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
    """Normalizes; mixes training images. `labels` are (B, C) when mixed, else (B,)."""

    def __init__(self, options: FinetuneOptions, transform: EvaluationTransform, num_classes: int):
        mixers = [v2.MixUp(alpha=options.mixup, num_classes=num_classes)] if options.mixup else []
        mixers += [v2.CutMix(alpha=options.cutmix, num_classes=num_classes)] if options.cutmix else []
        self.mix = v2.RandomChoice(mixers) if mixers else None
        self.transform = transform

    def __call__(self, items: list[Json]) -> dict[str, torch.Tensor]:
        pixels = self.transform.normalize(torch.stack([item["pixels"] for item in items]))
        labels = torch.tensor([item["label"] for item in items])
        if self.mix is not None and items[0]["augmented"]:
            pixels, labels = self.mix(pixels, labels)
        return {"pixel_values": pixels, "labels": labels}


class Progress(TrainerCallback):
    """Updates a second and time left, on the main process."""

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        self.track = Track(state.max_steps, "fine-tuning", "updates", state.is_world_process_zero)
        self.track.begin_at(state.global_step)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.track.add()

    def on_train_end(self, args, state, control, **kwargs) -> None:
        self.track.close()


def make_trainer(
    network,
    train: Images,
    options: FinetuneOptions,
    transform: EvaluationTransform,
    num_classes: int,
    kept: Path | None,
    scratch: str,
) -> Any:
    """The Trainer. It keeps the newest epoch in the folder `kept`, if there is one."""
    from transformers import PrinterCallback, Trainer, TrainingArguments, get_cosine_schedule_with_warmup

    arguments = TrainingArguments(
        output_dir=str(kept or scratch),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        max_grad_norm=1.0,
        seed=options.seed,
        save_strategy="no" if kept is None else "epoch",
        save_total_limit=1,
        eval_strategy="no",
        logging_strategy="epoch",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=options.num_workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
    )

    def loss(outputs, labels, num_items_in_batch=None) -> torch.Tensor:
        return functional.cross_entropy(outputs.logits, labels, label_smoothing=options.label_smoothing)

    batch = options.batch_size * arguments.world_size * max(1, arguments.n_gpu)
    steps = -(-len(train) // batch)
    optimizer = torch.optim.AdamW(parameter_groups(network, options, options.learning_rate * batch / 256))
    warmup = round(options.warmup_epochs * steps)
    scheduler = get_cosine_schedule_with_warmup(optimizer, warmup, options.epochs * steps)
    collator = Collator(options, transform, num_classes)
    trainer = Trainer(
        model=network, args=arguments, train_dataset=train, data_collator=collator, compute_loss_func=loss,
        optimizers=(optimizer, scheduler),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    return trainer


def parameter_groups(network: nn.Module, options: FinetuneOptions, learning_rate: float) -> list[Json]:
    """One group for each depth and weight decay: embeddings are depth 0, block i is i + 1, norm and head the last."""
    blocks = [int(found[1]) for name, _ in network.named_parameters() if (found := _BLOCK.search(name))]
    top = max(blocks, default=-1) + 2
    groups: dict[tuple[int, bool], Json] = {}
    for name, parameter in network.named_parameters():
        decays = parameter.ndim > 1 and not name.endswith(_SPARED)
        depth = depth_of(name, top)
        group = groups.setdefault((depth, decays), {"params": [], "weight_decay": options.weight_decay * decays})
        group["lr"] = learning_rate * options.layer_decay ** (top - depth)
        group["params"].append(parameter)
    return list(groups.values())


def depth_of(name: str, top: int) -> int:
    if found := _BLOCK.search(name):
        return int(found[1]) + 1
    return 0 if "embeddings" in name or name.endswith(_SPARED) else top


def tested(trainer: Any, test: Images, options: FinetuneOptions) -> Outcome:
    """The result on the test images; the Trainer counts images once that processes see twice."""
    prediction = trainer.predict(test)
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return score(torch.from_numpy(logits).float(), torch.from_numpy(prediction.label_ids), options.seed)


def save(network: nn.Module, folder: Path) -> None:
    """A directory that AutoModelForImageClassification reads."""
    if network.config.model_type == "visreg_vit":
        save_checkpoint(network, folder, overwrite=True)
    else:
        network.save_pretrained(folder)
