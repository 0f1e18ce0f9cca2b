# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning of the whole network by transformers' Trainer: mixup, cutmix, layer-wise learning rates.

B images, C classes. Nothing is chosen by default: the weights of the last epoch are tested, once.
"""

import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset
from torchvision.transforms import v2
from transformers import TrainerCallback

from modeling_visreg import save_checkpoint

from ...backbones import TransformersBackbone, layer_numbers, layer_rates, transformers_blocks
from ...data import MultiCrop
from ...distributed import process_state, raise_on_all_ranks
from ...errors import one_line
from ...machine import check_workers
from ...option import EPOCHS, NOT_NEGATIVE, POSITIVE, SEED, Range, check_options, option
from ...progress import Track
from ...run_folder import Json, atomic_file, model_directory, read_json, write_json
from ...seeding import image_generator, seed_of
from ..augmented import CROP_SCALE
from ..features import check_finite, digest, extract_features, readable, sparse_values
from ..inputs import Inputs
from ..options import AT_LEAST_ONE, PASSES, PIXELS, FeatureOptions
from ..outcome import Outcome, score, select
from ..preprocessing import EvaluationTransform, transform_for
from ..splits import Sources, label_map, overlap_note
from . import Protocol


_SPARED = ("cls_token", "position_embeddings", "mask_token", "register_tokens")  # of weight decay, as 1-D ones are
_NORMS = ("none", "batch")
_FIRST = 8  # images that have to give numbers before anything is trained
_BELOW_ONE = Range(lambda value: 0 <= value < 1, "be in [0, 1)")


@dataclass(frozen=True)
class FinetuneOptions:
    """Defaults for small data sets and a ViT-S; recipes/finetune has those for a ViT-B. The paper gives none.

    Raises:
        ValueError: a value is out of range.
    """

    epochs: int = option(50, "passes over the training images", PASSES)
    warmup_epochs: float = option(5, "of linear warmup", NOT_NEGATIVE.up_to(EPOCHS))
    learning_rate: float = option(5e-4, "of the head for a batch of 256, scaled with it", POSITIVE)
    weight_decay: float = option(0.05, "of matrices; vectors, tokens and positions have none", NOT_NEGATIVE)
    layer_decay: float = option(
        0.75,
        "block i of L has layer_decay ** (L - i) of the learning rate",
        Range(lambda v: 0 < v <= 1, "be in (0, 1]"),
    )
    undecayed: str = option(
        "head", "what has the whole learning rate; last_block: it and the head (release)", ("head", "last_block")
    )
    min_learning_rate: float = option(0.0, "at the end of the cosine, for the head (release: 1e-6)", NOT_NEGATIVE)
    head_norm: str = option(
        "none", "batch: BN in front of the linear head (release), folded into it in the end", _NORMS
    )
    randaugment: tuple[int, int] = option(
        (0, 9), "operations on an image, and their magnitude (release: 2 9)",
        Range(lambda values: values[0] >= 0 and 0 <= values[1] <= 30, "be 0 or above, and from 0 to 30"),
    )  # fmt: skip
    erasing: float = option(0.0, "chance that a box of an image is erased (release: 0.25)", _BELOW_ONE)
    weights: str = option("last", "epoch that is reported; best: on the test images (release)", ("last", "best"))
    drop_path: float = option(0.1, "of the network while it is fine-tuned", _BELOW_ONE)
    mixup: float = option(0.8, "of its Beta distribution, 0: none; a batch has mixup or cutmix", NOT_NEGATIVE)
    cutmix: float = option(1.0, "of its Beta distribution, 0: none", NOT_NEGATIVE)
    label_smoothing: float = option(0.1, "of the cross entropy", _BELOW_ONE)
    batch_size: int = option(64, "images of an update, a process", AT_LEAST_ONE)
    image_size: int | None = option(None, "pixels of a side; default: the model's native size", PIXELS)
    num_workers: int = option(4, "processes that decode and crop, for each rank", NOT_NEGATIVE)
    seed: int = option(0, "of all that is drawn", SEED)

    def __post_init__(self):
        check_options(self)
        check_workers(self.num_workers)


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
    if options.weights == "best" and inputs.folder is None and process_state().num_processes > 1:
        raise ValueError("weights: several processes need a folder for those of the best epoch")
    if not isinstance(backbone, TransformersBackbone):
        raise ValueError("fine-tuning takes models that AutoModelForImageClassification opens; convert timm's first")
    transform = transform_for(backbone, options.image_size)
    if transform.size[0] != transform.size[1]:
        height, width = transform.size
        raise ValueError(f"augmented crops are square, not {height} x {width}: give --image_size one number")
    names = class_names(sources)
    if len(names) < 2:
        raise ValueError("all training images are of one class: there is nothing to tell apart")
    first = islice(sources.test.examples(), _FIRST)  # before hours are spent: does the model give numbers at all
    extract_features(backbone, first, FeatureOptions(layers=1, image_size=options.image_size))
    torch.manual_seed(seed_of("finetune", options.seed))  # of the new head; the Trainer seeds what follows
    network = open_classifier(backbone, options, names)
    numbers = None if sources.train.label_names else {int(name): number for number, name in enumerate(names)}
    train = Images(sources.train, transform, options.seed, numbers, augmented=True, randaugment=options.randaugment)
    test = Images(sources.test, transform, options.seed, numbers or label_map(names, sources.test.label_names))
    with tempfile.TemporaryDirectory() as scratch:  # the Trainer wants a folder, and may write nothing into it
        kept = inputs.folder / "checkpoints" if inputs.folder is not None else None
        newest = None if kept is None else claim(kept, inputs, options)
        trainer = make_trainer(network, train, options, transform, len(names), kept, scratch)
        best = BestEpoch(trainer, test, Path(trainer.args.output_dir)) if options.weights == "best" else None
        if best is not None:
            trainer.add_callback(best)
        trainer.train(resume_from_checkpoint=newest)
        record = None if best is None else best.load(network)
        outcome = tested(trainer, test, options)
        trainer.accelerator.wait_for_everyone()
    if not trainer.is_world_process_zero():
        return None
    fold_norm(network)
    if inputs.folder is not None:
        save(network, inputs.folder / "model")
        shutil.rmtree(inputs.folder / "checkpoints")
    outcome.settings = asdict(options) | {"optimizer": "AdamW, cosine"}
    outcome.selection, outcome.notes = record, overlap_note(train.digests, test.digests)
    outcome.settings["left_out"] = {"train": train.left_out, "test": test.left_out}
    outcome.features = {"transform": transform.description()}
    return outcome


RELEASED = {
    "learning_rate": 3e-4, "min_learning_rate": 1e-6, "layer_decay": 0.75, "undecayed": "last_block",
    "warmup_epochs": 10, "batch_size": 32, "head_norm": "batch", "randaugment": (2, 9), "erasing": 0.25,
    "mixup": 0.0, "cutmix": 0.0, "weights": "best",
}  # fmt: skip
PROTOCOL = Protocol(
    "the whole network, with transformers' Trainer", FinetuneOptions, finetune, takes_features=False, writes=True,
    presets={"released": RELEASED},
)  # fmt: skip


def claim(folder: Path, inputs: Inputs, options: FinetuneOptions) -> str | None:
    """The newest checkpoint of the same fine-tuning in a folder, None where it begins.

    Raises:
        ValueError: the folder holds another one.
    """
    known_as = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()}
    settings = {name: value for name, value in known_as.items() if name != "num_workers"}
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
    labels = [source.example(n).label for source in (sources.train, sources.test) for n in range(source.num_examples)]
    if any(isinstance(label, list) for label in labels) or all(label is None for label in labels):
        raise ValueError("fine-tuning needs one class an image; name its column with --label_column")
    values = torch.tensor([label for label in labels if label is not None and label >= 0])
    sparse = sparse_values(values)
    return [str(number) for number in (range(int(values.max()) + 1) if sparse is None else sparse.tolist())]


def open_classifier(backbone: TransformersBackbone, options: FinetuneOptions, names: list[str]) -> nn.Module:
    """The network with a new head, its drop path set.

    Raises:
        ValueError: BN is asked for in front of a head that is no single linear layer.
    """
    from transformers import AutoModelForImageClassification

    extra = {"drop_path_rate": options.drop_path} if hasattr(backbone.module.config, "drop_path_rate") else {}
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    try:
        network = AutoModelForImageClassification.from_pretrained(
            model_directory(backbone.name),
            trust_remote_code=backbone.trust_remote_code,
            dtype=torch.float32,
            **labels,
            **extra,
        )
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a stranger's files make transformers fail in any way there is
        raise ValueError(f"{backbone.name} cannot be opened with a head: {one_line(error, 300)}") from error
    if options.head_norm == "batch":
        linear = getattr(network, "classifier", None)
        if not isinstance(linear, nn.Linear):
            raise ValueError(f"head_norm: the head of {type(network).__name__} is no linear layer `classifier`")
        norm = nn.SyncBatchNorm if torch.cuda.is_available() and process_state().num_processes > 1 else nn.BatchNorm1d
        network.classifier = nn.Sequential(norm(linear.in_features), linear)
    return network


def fold_norm(network: nn.Module) -> None:
    """Makes one linear layer of BN and the linear head: what it computes outside of training is linear."""
    if not isinstance(getattr(network, "classifier", None), nn.Sequential):
        return
    norm, linear = network.classifier
    with torch.no_grad():
        gain = norm.weight / (norm.running_var + norm.eps).sqrt()
        linear.bias += linear.weight @ (norm.bias - norm.running_mean * gain)
        linear.weight *= gain
    network.classifier = linear


class Images(Dataset):
    """uint8 pixels and labels: a random resized crop and flip, new with every reading, or the test transform.

    Every image is read once beforehand: those that cannot be read or have no class are left out.

    Attributes:
        numbers: of the other images, in the source; left_out: how many were left out.
        ids, digests: of the other images.

    Raises:
        ValueError: no image is left, or too many cannot be read.
    """

    def __init__(
        self,
        source,
        transform: EvaluationTransform,
        seed: int,
        mapping=None,
        augmented: bool = False,
        randaugment=(0, 9),
    ):
        self.source, self.transform, self.seed, self.mapping = source, transform, seed, mapping
        self.crop = MultiCrop(num_global=1, num_local=0, global_size=transform.size[0], global_scale=CROP_SCALE)
        self.augmented = augmented
        self.randaugment = v2.RandAugment(*randaugment) if randaugment[0] else None
        self.numbers, self.ids, digests = [], [], []
        for number, pixels, label, name in readable(transform, source, FeatureOptions()):
            if isinstance(label, int) and label >= 0:
                self.numbers.append(number)
                self.ids.append(name)
                digests.append(digest(pixels))
        self.left_out = source.num_examples - len(self.numbers)
        if not self.numbers:
            raise ValueError(f"{source.name}, split {source.split}: no image has one class; name its --label_column")
        self.digests = torch.stack(digests)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Json:
        raw = self.source.example(self.numbers[index])
        opened = raw.open()
        label = raw.label if self.mapping is None else self.mapping[raw.label]
        if not self.augmented:
            return {"pixels": self.transform(opened.load()), "label": label, "augmented": False}
        # The Trainer seeds each worker anew in every epoch.
        draw = int(torch.randint(2**31, ()))
        (view,) = self.crop.from_opened(opened, image_generator(self.seed, draw, raw.key))
        if self.randaugment is not None:
            view = self.randaugment(view.contiguous())
        return {"pixels": view, "label": label, "augmented": True}


class Collator:
    """Normalizes; mixes training images. `labels` are (B, C) when mixed, else (B,)."""

    def __init__(self, options: FinetuneOptions, transform: EvaluationTransform, num_classes: int):
        mixers = [v2.MixUp(alpha=options.mixup, num_classes=num_classes)] if options.mixup else []
        mixers += [v2.CutMix(alpha=options.cutmix, num_classes=num_classes)] if options.cutmix else []
        self.mix = v2.RandomChoice(mixers) if mixers else None
        self.erase = v2.RandomErasing(options.erasing) if options.erasing else None
        self.transform = transform

    def __call__(self, items: list[Json]) -> dict[str, torch.Tensor]:
        pixels = self.transform.normalize(torch.stack([item["pixels"] for item in items]))
        labels = torch.tensor([item["label"] for item in items])
        if self.erase is not None and items[0]["augmented"]:
            pixels = torch.stack([self.erase(image) for image in pixels])
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


class BestEpoch(TrainerCallback):
    """Tests after every epoch and keeps the weights of the best, in the folder of the checkpoints."""

    def __init__(self, trainer: Any, test: Images, folder: Path):
        self.trainer, self.test, self.folder = trainer, test, folder
        self.values: dict[str, float] = read_json(folder / "epochs.json") or {}

    def on_epoch_end(self, args, state, control, **kwargs) -> None:
        logits, labels = predict(self.trainer, self.test)
        value = float((logits.argmax(1) == labels).double().mean())
        best = value > max(self.values.values(), default=-1.0)
        self.values[str(round(state.epoch))] = value
        if state.is_world_process_zero:
            if best:
                weights = self.trainer.accelerator.unwrap_model(self.trainer.model).state_dict()
                with atomic_file(self.folder / "best.pt") as part:
                    torch.save({name: tensor.cpu() for name, tensor in weights.items()}, part)
            write_json(self.folder / "epochs.json", self.values)

    def load(self, network: nn.Module) -> Json:
        """Gives the network the weights of the best epoch; returns the record of the choice."""
        self.trainer.accelerator.wait_for_everyone()
        network.load_state_dict(torch.load(self.folder / "best.pt", weights_only=True))
        return select("test", [{"epoch": int(epoch)} for epoch in self.values], list(self.values.values()))[1]


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
    from transformers import PrinterCallback, Trainer, TrainingArguments

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
        dataloader_drop_last=options.head_norm == "batch",  # BN cannot learn from a last batch of one image
        dataloader_pin_memory=torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
    )

    def loss(outputs, labels, num_items_in_batch=None) -> torch.Tensor:
        return functional.cross_entropy(outputs.logits, labels, label_smoothing=options.label_smoothing)

    batch = options.batch_size * arguments.world_size * max(1, arguments.n_gpu)
    steps = len(train) // batch if options.head_norm == "batch" else -(-len(train) // batch)
    if steps == 0:
        raise ValueError(f"batch_size: {len(train)} training images make no batch of {batch}")
    peak = options.learning_rate * batch / 256
    optimizer = torch.optim.AdamW(parameter_groups(network, options, peak))
    factor = learning_rate_factor(
        round(options.warmup_epochs * steps), options.epochs * steps, options.min_learning_rate / peak
    )
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    collator = Collator(options, transform, num_classes)
    trainer = Trainer(
        model=network, args=arguments, train_dataset=train, data_collator=collator, compute_loss_func=loss,
        optimizers=(optimizer, scheduler),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
    return trainer


def learning_rate_factor(warmup: int, total: int, least: float) -> Callable[[int], float]:
    """Share of the learning rates at an update: linear warmup, then a half cosine to `least`."""

    def factor(step: int) -> float:
        if step < warmup:
            return step / max(1, warmup)
        progress = (step - warmup) / max(1, total - warmup)
        return least + (1 - least) * max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))

    return factor


def parameter_groups(network: nn.Module, options: FinetuneOptions, learning_rate: float) -> list[Json]:
    """One group for each depth and weight decay: embeddings are depth 0, block i is i + 1, norm and head the last."""
    layers = layer_numbers(network, transformers_blocks(network))
    top = max(layers.values(), default=0)
    shares = layer_rates({top, *layers.values()}, options.layer_decay, top - (options.undecayed == "last_block"))
    groups: dict[tuple[int, bool], Json] = {}
    for name, parameter in network.named_parameters():
        decays = parameter.ndim > 1 and not name.endswith(_SPARED)
        depth = layers.get(name, top)
        group = groups.setdefault((depth, decays), {"params": [], "weight_decay": options.weight_decay * decays})
        group["lr"] = learning_rate * shares[depth]
        group["params"].append(parameter)
    return list(groups.values())


def tested(trainer: Any, test: Images, options: FinetuneOptions) -> Outcome:
    """The result on the test images; the Trainer counts images once that processes see twice."""
    logits, labels = predict(trainer, test)
    check_finite(logits, test.ids, "test image")
    return score(logits, labels, options.seed)


def predict(trainer: Any, test: Images) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, C) and classes (n,) of all test images; what the Trainer drops in training it would drop here."""
    dropped, trainer.args.dataloader_drop_last = trainer.args.dataloader_drop_last, False
    try:
        prediction = trainer.predict(test)
    finally:
        trainer.args.dataloader_drop_last = dropped
    found = prediction.predictions
    logits = torch.from_numpy(found[0] if isinstance(found, tuple) else found).float()
    return logits, torch.from_numpy(prediction.label_ids)


def save(network: nn.Module, folder: Path) -> None:
    """A directory that AutoModelForImageClassification reads."""
    if network.config.model_type == "visreg_vit":
        save_checkpoint(network, folder, overwrite=True)
    else:
        network.save_pretrained(folder)
