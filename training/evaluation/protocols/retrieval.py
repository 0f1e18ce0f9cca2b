# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Image retrieval: each test image ranks the training images (or the other test images) by cosine similarity.

Images that are equally similar share their place: average precision counts them at the end of their group, as
scikit-learn's does, and recall as if they came in any order. A model that tells nothing apart gets chance.

q queries, n images of the gallery, d features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import gammaln
from torch.nn import functional

from ...option import SEED, Range, check_options, option
from .. import intervals
from ..features import Features
from ..outcome import Outcome
from ..preprocessing import threaded
from ..splits import Task
from . import Protocol, on_features


_ENTRIES = 2**21  # similarities ranked at once, by one thread
_LEVELS = 2.0**20  # of similarity, from 0 to 1: closer than a millionth is a tie, as far as float32 products tell
_STEPS = 8  # of looking for the end of a group of ties, before a search does


@dataclass(frozen=True)
class RetrievalOptions:
    """What is ranked, and how far one looks.

    Raises:
        ValueError: a value is out of range.
    """

    recall_at: tuple[int, ...] = option(
        (1, 5, 10), "recall@k: a relevant image among the first k",
        Range(lambda values: values and min(values) >= 1, "be at least 1"),
    )  # fmt: skip
    gallery: str = option("train", "what is ranked; `test`: every test image ranks all others", ("train", "test"))
    seed: int = option(0, "of all that is drawn", SEED)

    def __post_init__(self):
        check_options(self)


def retrieval(task: Task, options: RetrievalOptions | None = None, device: torch.device | str = "cpu") -> Outcome:
    """Mean average precision over the full ranking, and recall@k: the share of queries with a relevant image among
    the first k. Images are relevant that share a class with the query; queries without any are left out, and counted.

    Raises:
        ValueError: no query has a relevant image.
    """
    options = options or RetrievalOptions()
    at = sorted(set(options.recall_at))
    precisions, recalls = rank(task.test, task.train if options.gallery == "train" else None, at)
    known = np.isfinite(precisions)
    if not known.any():
        raise ValueError("no query has a relevant image in the gallery")
    precisions, recalls = precisions[known], recalls[known].mean(0)
    metrics = {f"recall@{k}": float(recall) for k, recall in zip(at, recalls, strict=True)}
    metrics["queries_left_out"] = int((~known).sum())
    interval = intervals.of_mean(precisions, options.seed)
    settings = {"gallery": options.gallery, "similarity": "cosine", "seed": options.seed}
    return Outcome("mean_average_precision", float(precisions.mean()), interval, metrics, settings=settings)


PROTOCOL = Protocol("mean average precision and recall", RetrievalOptions, on_features(retrieval))


def rank(queries: Features, gallery: Features | None, at: Sequence[int] = (1,)) -> tuple[np.ndarray, np.ndarray]:
    """Average precision (q,), nan without a relevant image, and recall (q, len(at)): the chance of a relevant image
    among the first k, which is 0 or 1 where no ties are.

    Args:
        gallery: None for the queries themselves, each without itself.
    """
    bank = functional.normalize((gallery or queries).features, dim=1)
    labels = (gallery or queries).labels
    directions = functional.normalize(queries.features, dim=1)

    def measure(rows: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        levels = directions[rows].mul_(-_LEVELS) @ bank.T
        keys = levels.round_().to(torch.int32).mul_(2)  # rises where similarity falls; even: relevant
        keys += ~relevance(queries.labels[rows], labels)
        if gallery is None:
            keys[torch.arange(len(rows)), rows] = torch.iinfo(torch.int32).max  # the query itself comes last
        return measure_ranking(np.sort(keys.numpy(), axis=1), at)

    chunks = torch.arange(len(directions)).split(max(1, _ENTRIES // len(bank)))
    precisions, recalls = zip(*threaded(measure, chunks), strict=True)
    return np.concatenate(precisions), np.concatenate(recalls)


def relevance(wanted: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(b, n) whether images share a class with the query."""
    if labels.ndim == 1:
        return labels == wanted[:, None]
    return wanted.float() @ labels.float().T > 0


def measure_ranking(keys: np.ndarray, at: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Average precision (b,) and recall (b, len(at)) of sorted keys (b, n): 2 x level of similarity, lower is closer,
    one more for images that are not relevant. Relevant images so come first among those of their level.
    """
    groups = find_groups(keys)
    counts = np.bincount(groups.row, groups.relevant, minlength=len(keys))
    precision = groups.found / (groups.end + 1.0)
    with np.errstate(invalid="ignore"):
        precisions = np.bincount(groups.row, precision * groups.relevant, minlength=len(keys)) / counts
    recalls = np.zeros((len(keys), len(at)))
    rows, first = np.unique(groups.row, return_index=True)
    size, relevant = (groups.end - groups.start + 1)[first], groups.relevant[first]
    for column, k in enumerate(at):
        taken = np.clip(k - groups.start[first], 0, size)
        recalls[rows, column] = 1 - chance_of_none(size, relevant, taken)
    return precisions, recalls


class Groups(NamedTuple):
    """The levels of similarity at which a query has relevant images, all queries in one row of arrays.

    `row`: the query; `start`, `end`: places of the first and last image of that level; `relevant`: how many of them
    are; `found`: relevant images up to `end`.
    """

    row: np.ndarray
    start: np.ndarray
    end: np.ndarray
    relevant: np.ndarray
    found: np.ndarray


def find_groups(keys: np.ndarray) -> Groups:
    """The groups of sorted keys (b, n)."""
    place = np.flatnonzero((keys & 1) == 0)
    row, of_hit = place // keys.shape[1], keys.ravel()[place]
    opens = np.ones(len(place), bool)
    opens[1:] = (of_hit[1:] != of_hit[:-1]) | (row[1:] != row[:-1])
    first = np.flatnonzero(opens)  # number of the first hit of each group
    last = np.append(first, len(place))[1:] - 1
    before = np.append(0, np.cumsum(np.bincount(row, minlength=len(keys))))[row[first]]
    end = ends_of_ties(keys, place[last])
    offset = row[first] * keys.shape[1]
    return Groups(row[first], place[first] - offset, end - offset, last - first + 1, last - before + 1)


def ends_of_ties(keys: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Place of the last image of the level of each given one, places counted through all rows.

    Args:
        place: of the last relevant image of a level.
    """
    flat, width, end = keys.ravel(), keys.shape[1], place.copy()
    tied, other = np.arange(len(place)), flat[place] + 1  # the key of images of that level that are not relevant
    for _step in range(_STEPS):
        after = end[tied] + 1
        inside = after % width != 0
        tied, after = tied[inside], after[inside]
        same = flat[after] == other[tied]
        tied = tied[same]
        end[tied] += 1
        if len(tied) == 0:
            return end
    for number in tied:
        row = end[number] // width
        end[number] = row * width + np.searchsorted(keys[row], other[number], side="right") - 1
    return end


def chance_of_none(size: np.ndarray, relevant: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Chance that none of `taken` images, drawn of `size` without putting back, is one of the `relevant` ones."""
    others = size - relevant
    possible = others >= taken
    drawn = np.minimum(others, taken)
    logs = gammaln(others + 1) - gammaln(others - drawn + 1) + gammaln(size - drawn + 1) - gammaln(size + 1)
    return np.where(possible, np.exp(logs), 0.0)
