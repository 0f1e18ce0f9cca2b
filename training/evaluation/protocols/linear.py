# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Linear classifiers on frozen features; the choice is made on validation images, the test images are touched once.

`linear` is the paper's protocol (SGD, a grid of learning rates: heads.py), with `--solver lbfgs` logistic regression
to convergence (logistic.py); `linear_accuracy` is what a run asks for at its end. n training and m test images, d
features, H heads, C classes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from ...option import SEED, Range, check_options, option
from ...run_folder import Json
from ...seeding import short_seed_of
from ..augmented import AugmentedImages, train_on_images
from ..features import Features
from ..heads import LEARNING_RATES, NORMS, BatchedHeads, head_values, train_heads
from ..inputs import Inputs, on_main_process
from ..logistic import STRENGTHS, as_arrays, compare_strengths, logistic_regression
from ..options import AT_LEAST_ONE, PASSES
from ..outcome import LABEL_METRICS, Outcome, score, select
from ..preprocessing import transform_for
from ..splits import SELECTIONS, Choice, Task, fit_and_choose, make_task
from . import Protocol


_MANY = 10_000  # images
_FULL_BATCH = 200_000_000  # images * width * classes that full batches are solved for, in some ten seconds
_EPOCHS = 20
_HELD_OUT = 0.2  # of the training images, on which the strength is chosen at the end of a run


@dataclass(frozen=True)
class LinearOptions:
    """How classifiers are trained and chosen; the defaults are the paper's, `epochs` is ours (the paper gives none).

    Raises:
        ValueError: a value is out of range.
    """

    learning_rates: tuple[float, ...] = option(
        LEARNING_RATES, "for a batch of 256, scaled with it (paper: 13 from 1e-4 to 0.5)",
        Range(lambda values: values and min(values) > 0, "be above 0"),
    )  # fmt: skip
    weight_decays: tuple[float, ...] = option(
        (0.0,), "each learning rate is trained with each of these (paper: none)",
        Range(lambda values: values and min(values) >= 0, "be 0 or above"),
    )  # fmt: skip
    epochs: int = option(100, "passes over the training images", PASSES)
    head_batch_size: int = option(256, "images of an update of the heads", AT_LEAST_ONE)
    images: str = option(
        "cached", "augmented: random crops and flips, new in each epoch (paper)", ("cached", "augmented")
    )
    solver: str = option("sgd", "lbfgs: full batches, for small sets", ("sgd", "lbfgs"))
    selection: str = option("validation", "what is chosen on; `test`: as in papers, marked in the result", SELECTIONS)
    norm: str = option("plain", "BN of the heads; affine: PyTorch's own (release), none: no BN (DINOv2)", NORMS)
    drop_last: bool = option(False, "leave out the last, smaller batch of an epoch (release)")
    rate_steps: str = option("update", "the cosine steps with each of these (release: epoch)", ("update", "epoch"))
    label_metric: str = option("macro_auroc", "of images with several labels (release: exact_match)", LABEL_METRICS)
    num_labels: int | None = option(None, "only the first so many, of images with several", AT_LEAST_ONE)
    seed: int = option(0, "of all that is drawn", SEED)

    def __post_init__(self):
        check_options(self)
        if self.images == "augmented" and self.solver != "sgd":
            raise ValueError("augmented images need the solver sgd")

    def heads(
        self, task: Task, device: torch.device | str, setting: tuple[float, float] | None = None
    ) -> BatchedHeads:
        """Untrained heads for all learning rates and weight decays, or for the pair given."""
        rates, decays = (self.learning_rates, self.weight_decays) if setting is None else zip(setting, strict=True)
        width = task.train.features.shape[1]
        return BatchedHeads(width, task.num_classes, rates, decays, task.multi_label, self.seed, device, self.norm)

    @property
    def training(self) -> Json:
        """Keywords of `train_heads` and `train_on_images`."""
        described = {"epochs": self.epochs, "batch_size": self.head_batch_size, "seed": self.seed}
        return described | {"drop_last": self.drop_last, "each_epoch": self.rate_steps == "epoch"}

    def description(self, images: str) -> Json:
        """The settings of heads, for the result file."""
        return {
            "learning_rates": list(self.learning_rates),
            "weight_decays": list(self.weight_decays),
            "epochs": self.epochs,
            "batch_size": self.head_batch_size,
            "seed": self.seed,
            "optimizer": f"SGD, momentum 0.9, cosine by {self.rate_steps}",
            "head": {"plain": "BN, Linear", "affine": "affine BN, Linear", "none": "Linear"}[self.norm],
            "drop_last": self.drop_last,
            "solver": "sgd",
            "images": images,
        }


def evaluate(inputs: Inputs, options: LinearOptions) -> Outcome | None:
    """The linear protocol: on augmented images all processes work, else the main one."""
    task = first_labels(inputs.task(), options.num_labels)
    if options.images == "augmented":
        return linear_on_images(inputs, task, options)
    return on_main_process(lambda: linear(task, options, inputs.device))


RELEASED = {
    "learning_rates": (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.3, 0.5),
    "weight_decays": (0.0,), "epochs": 100, "head_batch_size": 32, "images": "augmented", "solver": "sgd",
    "selection": "test", "norm": "affine", "drop_last": True, "rate_steps": "epoch", "label_metric": "exact_match",
    "num_labels": 14, "layers": 4, "pooling": "cls", "precision": "bfloat16",
}  # fmt: skip
DINOV2 = {
    "learning_rates": (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1),
    "weight_decays": (0.0,), "images": "augmented", "solver": "sgd", "norm": "none", "rate_steps": "update",
    "pooling": "cls",
}  # fmt: skip
PROTOCOL = Protocol(
    "linear classifier on frozen features, all learning rates at once", LinearOptions, evaluate,
    presets={"released": RELEASED, "dinov2": DINOV2},
)  # fmt: skip


def linear(task: Task, options: LinearOptions | None = None, device: torch.device | str = "cpu") -> Outcome:
    """The linear protocol on features in memory.

    With selection `validation` all heads are compared on the validation split; without one, on a tenth of the training
    images, after which the chosen setting is trained anew on all of them. `test` takes the best on the test images, as
    published results often do, and says so in the result.

    Raises:
        ValueError: L-BFGS is to take images with several labels.
    """
    options = options or LinearOptions()
    task = first_labels(task, options.num_labels)
    if options.solver == "lbfgs":
        return _full_batch(task, options)
    choice = fit_and_choose(task, options.seed, options.selection)
    heads = _trained(options.heads(task, device), task.train, options, choice.fit)
    best, record = choose_head(heads, choice, options.selection)
    if choice.fit is not None:
        setting = heads.settings[best]
        heads = _trained(options.heads(task, device, setting), task.train, options)
        best, record["trained_anew"] = 0, {"learning_rate": setting[0], "on": "all training images"}
    return _scored(heads, best, task, record, options, "cached features")


def first_labels(task: Task, count: int | None) -> Task:
    """With the first `count` labels only, where images have several."""
    if count is None or not task.multi_label or count >= task.num_classes:
        return task
    splits = [
        part and part._replace(labels=part.labels[:, :count]) for part in (task.train, task.test, task.validation)
    ]
    return Task(*splits, count, task.label_names and task.label_names[:count])


def _scored(heads: BatchedHeads, best: int, task: Task, record: Json, options: LinearOptions, images: str) -> Outcome:
    scores = heads.head_scores(task.test.features, best)
    outcome = score(scores, task.test.labels, options.seed, options.label_metric)
    outcome.selection, outcome.settings = record, options.description(images)
    return outcome


def _trained(
    heads: BatchedHeads, on: Features, options: LinearOptions, rows: torch.Tensor | None = None
) -> BatchedHeads:
    return train_heads(heads, on.features, on.labels, rows=rows, **options.training)


def choose_head(heads: BatchedHeads, choice: Choice, selection: str) -> tuple[int, Json]:
    """Number of the best head on the images of the choice, and the record of it."""
    candidates = [{"learning_rate": rate, "weight_decay": decay} for rate, decay in heads.settings]
    found = head_values(heads, choice.held.features, choice.held.labels, choice.rows)
    return select(selection, candidates, *found)


def linear_on_images(inputs: Inputs, task: Task, options: LinearOptions, rows: torch.Tensor | None = None) -> Outcome:
    """Linear classification with the paper's augmentation.

    The choice is made as in `linear`, on center crops; the chosen setting is not trained anew, which would double the
    time.

    Args:
        task: features of the center crops.
        rows: numbers of the training images, where nothing is chosen on them; None for all that are not held out.

    Raises:
        ValueError: the training images are a stream, or the model does not take squares.
    """
    source, transform = inputs.sources.train, transform_for(inputs.backbone, inputs.features.image_size)
    if not source.is_map_style:
        raise ValueError("augmented images are read at random: use --streaming false, or --images cached")
    if transform.size[0] != transform.size[1]:
        height, width = transform.size
        raise ValueError(f"augmented crops are square, not {height} x {width}: give --image_size one number")
    choice = fit_and_choose(task, options.seed, options.selection)
    if rows is None:
        rows = torch.arange(len(task.train.labels)) if choice.fit is None else choice.fit
    images = AugmentedImages(inputs.backbone, source, task, transform, inputs.features, options.seed)
    heads = options.heads(task, inputs.backbone.device)
    train_on_images(heads, images, rows, **options.training)
    best, record = choose_head(heads, choice, options.selection)
    outcome = _scored(heads, best, task, record, options, "random resized crop and flip")
    if options.drop_last and len(rows) < options.head_batch_size:
        outcome.notes.append(
            f"no step was taken: {len(rows)} training images make no batch of {options.head_batch_size}"
        )
    return outcome


def _full_batch(task: Task, options: LinearOptions) -> Outcome:
    """Logistic regression to convergence, its strength chosen as `linear` chooses learning rates."""
    if task.multi_label:
        raise ValueError("the full-batch solver takes one class an image; use --solver sgd")
    fit, choose = fit_and_choose(task, options.seed, options.selection).copies()
    models, *found = compare_strengths(_arrays(fit), _arrays(choose))
    best, record = select(options.selection, [{"strength": strength} for strength in STRENGTHS], *found)
    final = models[best]
    if fit is not task.train:
        final = logistic_regression(*_arrays(task.train), STRENGTHS[best])
    scores = torch.full((len(task.test.labels), task.num_classes), -torch.inf)
    logits = torch.from_numpy(final.predict_log_proba(_arrays(task.test)[0])).float()
    scores[:, torch.from_numpy(final[-1].classes_)] = logits
    outcome = score(scores, task.test.labels, options.seed)
    outcome.selection = record
    outcome.settings = full_batch_settings(options.seed)
    return outcome


def full_batch_settings(seed: int) -> Json:
    """The settings of logistic regression, for the result file."""
    return {"solver": "lbfgs", "strengths": list(STRENGTHS), "seed": seed}


def _arrays(features: Features) -> tuple[np.ndarray, np.ndarray]:
    return as_arrays(features.features, features.labels)


class LinearResult(NamedTuple):
    """`accuracy` on the test images; `strength`: the inverse regularization chosen (of heads: the learning rate), with
    its `validation` accuracy; `settings`: as a result file has them."""

    accuracy: float
    strength: float
    validation: float
    settings: Json


def linear_accuracy(
    train_features: torch.Tensor,
    train_labels: torch.Tensor,
    test_features: torch.Tensor,
    test_labels: torch.Tensor,
    seed: int = 0,
) -> LinearResult:
    """Linear classification after a run: logistic regression (full batch, L-BFGS) on standardized features.

    The strength is chosen on a fifth of the training images, kept apart; the test images are touched once, by the
    classifier that is then fitted on all training images. Where that would take minutes (`_FULL_BATCH`), heads are
    trained by SGD instead, on the accelerator if there is one, and their learning rate is chosen.

    Raises:
        ValueError: an image has no label.
    """
    for split, labels in (("training", train_labels), ("test", test_labels)):
        if missing := int((labels < 0).sum()):
            raise ValueError(f"{missing} of {len(labels)} {split} images have no label: leave them out")
    if len(train_labels) > _MANY or train_features.numel() * (int(train_labels.max()) + 1) > _FULL_BATCH:
        return _heads_accuracy(train_features, train_labels, test_features, test_labels, seed)
    x, y = as_arrays(train_features, train_labels)
    stratum = y if np.bincount(y)[np.unique(y)].min() >= 5 else None  # else a plain split
    fit_x, held_x, fit_y, held_y = train_test_split(
        x, y, test_size=_HELD_OUT, random_state=short_seed_of("hold_out", seed), stratify=stratum
    )
    _models, values, losses = compare_strengths((fit_x, fit_y), (held_x, held_y))
    best, _record = select("validation", [{"strength": strength} for strength in STRENGTHS], values, losses)
    final = logistic_regression(x, y, STRENGTHS[best])
    accuracy = float(final.score(*as_arrays(test_features, test_labels)))
    settings = full_batch_settings(seed) | {"held_out": _HELD_OUT}
    return LinearResult(accuracy, STRENGTHS[best], values[best], settings)


def _heads_accuracy(
    train_features: torch.Tensor,
    train_labels: torch.Tensor,
    test_features: torch.Tensor,
    test_labels: torch.Tensor,
    seed: int,
) -> LinearResult:
    """`linear` with few learning rates and epochs, as `linear_accuracy` uses it for large sets."""
    train = Features(train_features.float(), train_labels, [""] * len(train_labels))
    test = Features(test_features.float(), test_labels, [""] * len(test_labels))
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    options = LinearOptions(learning_rates=LEARNING_RATES[4::2], epochs=_EPOCHS, seed=seed)
    outcome = linear(make_task(train, test), options, device)
    selection = outcome.selection or {}
    return LinearResult(outcome.value, selection["chosen"]["learning_rate"], selection["value"], outcome.settings)
