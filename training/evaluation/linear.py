# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Linear classifiers on frozen features; the choice is made on validation images, the test images are touched once.

`linear` is the paper's protocol (SGD, a grid of learning rates); `linear_accuracy` a full-batch solver for small sets.
n training and m test images, d features, H heads, C classes.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from .features import Features
from .heads import LEARNING_RATES, BatchedHeads, train_heads
from .task import Outcome, Task, check_selection, figure, fit_and_choose, judge, make_task


STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
_MANY = 10_000  # images
_FULL_BATCH = 200_000_000  # images * width * classes that full batches are solved for, in some ten seconds
_EPOCHS = 20


class LinearResult(NamedTuple):
    """`accuracy` on the test images; `strength`: the inverse regularisation chosen (of heads: the learning rate), with
    its `validation` accuracy."""

    accuracy: float
    strength: float
    validation: float


class HeadOptions(NamedTuple):
    """How heads are trained; the defaults are the paper's, `epochs` is ours (the paper gives none).

    `learning_rates` are for a batch of 256 and are scaled with it.
    """

    learning_rates: tuple[float, ...] = LEARNING_RATES
    weight_decays: tuple[float, ...] = (0.0,)
    epochs: int = 100
    batch_size: int = 256
    seed: int = 0

    def check(self) -> None:
        """ValueError for a value out of range."""
        if not self.learning_rates or min(self.learning_rates) <= 0:
            raise ValueError(f"learning_rates must be above 0, got {list(self.learning_rates)}")
        if not self.weight_decays or min(self.weight_decays) < 0:
            raise ValueError(f"weight_decays must not be negative, got {list(self.weight_decays)}")
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch size must be at least 1, got {self.epochs} and {self.batch_size}")

    def heads(self, task: Task, width: int, device, settings: tuple[float, float] | None = None) -> BatchedHeads:
        """Untrained heads for all settings, or for the one given."""
        rates, decays = (self.learning_rates, self.weight_decays) if settings is None else zip(settings, strict=True)
        return BatchedHeads(width, task.num_classes, rates, decays, task.multi_label, self.seed, device)

    def description(self) -> dict[str, Any]:
        described = self._asdict() | {"optimizer": "SGD, momentum 0.9, cosine", "head": "BN, Linear"}
        return described | {"learning_rates": list(self.learning_rates), "weight_decays": list(self.weight_decays)}


def linear(
    task: Task, options: HeadOptions | None = None, selection: str = "validation", device: torch.device | str = "cpu"
) -> Outcome:
    """The linear protocol on features in memory.

    With selection `validation` all heads are compared on the validation split; without one, on a tenth of the training
    images, after which the chosen setting is trained anew on all of them. `test` takes the best on the test images, as
    published figures often are, and says so in the result.

    Raises:
        ValueError: a value is out of range.
    """
    options = options or HeadOptions()
    options.check()
    check_selection(selection)
    width = task.train.features.shape[1]
    if selection == "test":
        fit, choose = task.train, task.test
    else:
        fit, choose = fit_and_choose(task, options.seed)
    heads = options.heads(task, width, device)
    train_heads(heads, fit.features, fit.labels, options.epochs, options.batch_size, options.seed)
    best, record = choose_head(heads, choose, selection)
    if fit is not task.train:
        heads, setting = options.heads(task, width, device, heads.settings[best]), heads.settings[best]
        train_heads(heads, task.train.features, task.train.labels, options.epochs, options.batch_size, options.seed)
        best, record["trained_anew"] = 0, {"learning_rate": setting[0], "on": "all training images"}
    outcome = judge(heads.head_scores(task.test.features, best), task.test.labels, options.seed)
    outcome.selection, outcome.settings = (
        record,
        options.description() | {"solver": "sgd", "images": "cached features"},
    )
    return outcome


def choose_head(heads: BatchedHeads, choose: Features, selection: str) -> tuple[int, dict[str, Any]]:
    """Number of the best head on the given images, and the record of the choice."""
    figures = head_figures(heads, choose)
    best = int(np.argmax(figures))
    names = [{"learning_rate": rate, "weight_decay": decay} for rate, decay in heads.settings]
    candidates = [name | {"value": value} for name, value in zip(names, figures, strict=True)]
    return best, {"on": selection, "chosen": names[best], "value": figures[best], "candidates": candidates}


def head_figures(heads: BatchedHeads, choose: Features) -> list[float]:
    """Accuracy (or macro AUROC) of each head."""
    if choose.labels.ndim == 2:
        scores = torch.cat([part.cpu() for part in heads.scores(choose.features)])
        return [figure(scores[:, head], choose.labels) for head in range(scores.shape[1])]
    labels = choose.labels.to(heads.weight.device).split(4096)
    pairs = zip(heads.scores(choose.features), labels, strict=True)
    right = sum((part.argmax(2) == truth[:, None]).sum(0) for part, truth in pairs)
    return (right / len(choose.labels)).tolist()


def linear_full_batch(task: Task, selection: str = "validation", seed: int = 0) -> Outcome:
    """Logistic regression to convergence, its strength chosen as `linear` chooses learning rates.

    Raises:
        ValueError: images have several labels.
    """
    check_selection(selection)
    if task.multi_label:
        raise ValueError("the full-batch solver takes one class an image; use --solver sgd")
    fit, choose = (task.train, task.test) if selection == "test" else fit_and_choose(task, seed)
    x, y = as_arrays(fit.features, fit.labels)
    models = [fitted(strength, x, y) for strength in STRENGTHS]
    figures = [float(model.score(*as_arrays(choose.features, choose.labels))) for model in models]
    best = int(np.argmax(figures))
    final = models[best]
    if fit is not task.train:
        final = fitted(STRENGTHS[best], *as_arrays(task.train.features, task.train.labels))
    scores = torch.full((len(task.test.labels), task.num_classes), -torch.inf)
    logits = torch.from_numpy(final.predict_log_proba(as_arrays(task.test.features, task.test.labels)[0])).float()
    scores[:, torch.from_numpy(final[-1].classes_)] = logits
    outcome = judge(scores, task.test.labels, seed)
    candidates = [{"strength": strength, "value": value} for strength, value in zip(STRENGTHS, figures, strict=True)]
    chosen = {"strength": STRENGTHS[best]}
    outcome.selection = {"on": selection, "chosen": chosen, "value": figures[best], "candidates": candidates}
    outcome.settings = {"solver": "lbfgs", "strengths": list(STRENGTHS), "seed": seed}
    return outcome


def linear_accuracy(train_features, train_labels, test_features, test_labels, seed: int = 0) -> LinearResult:
    """Linear classification after a run: logistic regression (full batch, L-BFGS) on standardised features.

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
        return heads_accuracy(train_features, train_labels, test_features, test_labels, seed)
    x, y = as_arrays(train_features, train_labels)
    fit_x, held_x, fit_y, held_y = train_test_split(x, y, test_size=0.2, random_state=seed, stratify=stratum(y))
    scores = [fitted(strength, fit_x, fit_y).score(held_x, held_y) for strength in STRENGTHS]
    best = int(np.argmax(scores))
    final = fitted(STRENGTHS[best], x, y)
    return LinearResult(
        float(final.score(*as_arrays(test_features, test_labels))), STRENGTHS[best], float(scores[best])
    )


def heads_accuracy(train_features, train_labels, test_features, test_labels, seed: int = 0) -> LinearResult:
    """`linear` with few learning rates and epochs, as `linear_accuracy` uses it for large sets."""
    train, test = (
        Features(features.float(), labels, [""] * len(labels))
        for features, labels in ((train_features, train_labels), (test_features, test_labels))
    )
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    options = HeadOptions(LEARNING_RATES[4::2], epochs=_EPOCHS, seed=seed)
    outcome = linear(make_task(train, test), options, device=device)
    return LinearResult(outcome.value, outcome.selection["chosen"]["learning_rate"], outcome.selection["value"])


def fitted(strength: float, x: np.ndarray, y: np.ndarray) -> Pipeline:
    """Standardisation and logistic regression. After 300 steps the accuracy has settled, if not the last digits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # few images of many classes
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300)).fit(x, y)


def as_arrays(features: torch.Tensor, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    return features.double().numpy(), labels.numpy()


def stratum(labels: np.ndarray) -> np.ndarray | None:
    """The labels, if each class can be shared out, else None (a plain split)."""
    return labels if np.bincount(labels)[np.unique(labels)].min() >= 5 else None
