# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One evaluation from a model and its data to the content of a result file; and a suite of them that can be cut off.

    result = evaluate(model, sources, Request("linear"))

Results are made by the main process; the others help to extract features and get None.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..backbones import Backbone
from .augmented import linear_on_images
from .features import FeatureCache, FeatureSettings
from .fewshot import SHOTS, fewshot
from .knn import knn
from .linear import HeadOptions, linear, linear_full_batch
from .processes import from_all, processes, together
from .results import feature_record, make_result, read_result, write_result
from .retrieval import RECALLS, retrieval
from .suite_table import ENTRIES, SUITES, Entry
from .task import Outcome, Sources, Task, load_task, open_sources
from .transform import transform_for


logger = logging.getLogger(__name__)

PROTOCOLS = ("knn", "linear", "fewshot", "retrieval")


@dataclass(frozen=True)
class Request:
    """What is to be measured, and how.

    Attributes:
        protocol: `knn`, `linear`, `fewshot` or `retrieval`.
        features: what is taken of the model.
        selection: images on which something is chosen: `validation` or `test`.
        heads: of `linear`.
        solver: of `linear`: `sgd`, or `lbfgs` for full batches.
        images: of `linear`: `cached` features, or `augmented` images (published protocol).
        ks, temperatures: of `knn`; shots, draws: of `fewshot`; recalls, gallery: of `retrieval`.
        batch_size: images that are embedded at once.
    """

    protocol: str
    features: FeatureSettings = field(default_factory=FeatureSettings)
    selection: str = "validation"
    seed: int = 0
    heads: HeadOptions = field(default_factory=HeadOptions)
    solver: str = "sgd"
    images: str = "cached"
    ks: tuple[int, ...] = (20,)
    temperatures: tuple[float, ...] = (0.07,)
    shots: tuple[int, ...] = SHOTS
    draws: int = 5
    recalls: tuple[int, ...] = RECALLS
    gallery: str = "train"
    batch_size: int = 256

    def __post_init__(self):
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"there is no protocol {self.protocol!r}; there are {', '.join(PROTOCOLS)}")
        if self.solver not in ("sgd", "lbfgs") or self.images not in ("cached", "augmented"):
            raise ValueError("solver is sgd or lbfgs, images are cached or augmented")
        if self.images == "augmented" and self.solver != "sgd":
            raise ValueError("augmented images need the solver sgd")
        self.heads.check()


def evaluate(
    model: Backbone,
    sources: Sources,
    request: Request,
    cache: FeatureCache | None = None,
    entry: str | None = None,
) -> dict[str, Any] | None:
    """The content of a result file, on the main process.

    Args:
        entry: key of the data set in the table of suites.

    Raises:
        ValueError: the data or an option is not what the protocol needs.
    """
    state = processes()
    model.to(state.device)
    started = time.perf_counter()
    task = load_task(model, sources, request.features, cache, request.batch_size)
    extracted = time.perf_counter()
    outcome = None
    if request.protocol == "linear" and request.images == "augmented":
        transform = transform_for(model, request.features.image_size)
        options = (transform, request.features, request.heads, request.selection)
        outcome = linear_on_images(model, sources.train, task, *options)
    else:
        with together():
            outcome = measure(task, request, state.device) if state.is_main_process else None
    if not state.is_main_process:
        return None
    seconds = {"features": extracted - started, "protocol": time.perf_counter() - extracted}
    seconds["total"] = sum(seconds.values())
    features = feature_record(request.features, transform_for(model, request.features.image_size))
    described = (model.description(), sources.descriptions())
    return make_result(request.protocol, outcome, *described, features, seconds, entry)


def measure(task: Task, request: Request, device: Any = "cpu") -> Outcome:
    """The protocol on features in memory."""
    if request.protocol == "knn":
        return knn(task, request.ks, request.temperatures, request.selection, request.seed)
    if request.protocol == "fewshot":
        return fewshot(task, request.shots, request.draws, request.seed)
    if request.protocol == "retrieval":
        return retrieval(task, request.recalls, request.gallery, request.seed)
    if request.solver == "lbfgs":
        return linear_full_batch(task, request.selection, request.seed)
    return linear(task, request.heads, request.selection, device)


def run_suite(
    model: Backbone,
    suite: str,
    request: Request,
    folder: Path,
    cache: FeatureCache | None = None,
    sources: dict[str, str] | None = None,
    say: Callable[[str], None] = logger.info,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Every data set of a suite: (results, reason why by key of those that could not be reached).

    Each result is written to `folder` as soon as it is there; a second call takes those that are (same weights, same
    request) and goes on with the others.

    Args:
        suite: a key of `SUITES`, or keys of entries with commas between them.
        sources: local folder or Hub id to use in the place of an entry's own, by key.

    Raises:
        ValueError: a key is not known.
    """
    keys = suite_keys(suite)
    if unknown := set(sources or {}) - set(keys):
        raise ValueError(f"source: {', '.join(sorted(unknown))} is not in the suite; it has {', '.join(keys)}")
    results, unreached = [], {}
    for key in keys:
        path = folder / f"{request.protocol}-{key}.json"
        (found, *_) = from_all(finished(path, model, request))  # of the main process
        if found is not None:
            say(f"{key}: taken from {path.name}")
            results.append(found)
            continue
        try:
            with together():
                opened = open_entry(ENTRIES[key], (sources or {}).get(key))
            result = evaluate(model, opened, request, cache, key)
        except (OSError, ValueError, RuntimeError) as error:
            unreached[key] = " ".join(str(error).split()) or type(error).__name__
            say(f"{key}: not reached: {unreached[key]}")
            continue
        if result is not None:
            result["request"] = as_json(request)
            write_result(result, path)
            say(f"{key}: {result['metric']} {100 * (result['value'] or 0):.1f} %")
            results.append(result)
    return results, unreached


def suite_keys(suite: str) -> tuple[str, ...]:
    keys = SUITES.get(suite) or tuple(part.strip() for part in suite.split(","))
    if unknown := [key for key in keys if key not in ENTRIES]:
        raise ValueError(
            f"there is no suite or data set {', '.join(unknown)}; suites are {', '.join(SUITES)}, "
            f"data sets {', '.join(ENTRIES)}"
        )
    return keys


def open_entry(entry: Entry, dataset: str | None = None) -> Sources:
    """The splits of an entry, or of `dataset` in its place (splits of the entry, columns found).

    Raises:
        ValueError: the entry has no Hub copy, or it cannot be opened.
    """
    if dataset is None and entry.dataset is None:
        raise ValueError(f"no copy on the Hub is known; get it from {entry.origin} and name its folder with --source")
    columns = {"image_column": entry.image_column, "label_column": entry.label_column, "dataset_config": entry.config}
    options = columns if dataset is None else {}
    splits = {"train_split": entry.train, "test_split": entry.test, "validation_split": entry.validation}
    return open_sources(dataset or entry.dataset, **splits, train_share=entry.train_share, **options)


def finished(path: Path, model: Backbone, request: Request) -> dict[str, Any] | None:
    """An earlier result of the same weights and request."""
    if not path.is_file():
        return None
    try:
        found = read_result(path)
    except ValueError:
        return None
    same = found["model"].get("weights") == model.weights_hash and found.get("request") == as_json(request)
    return found if same else None


def as_json(request: Request) -> dict[str, Any]:
    """The request as a JSON file gives it back; how many images are embedded at once does not matter."""
    described = asdict(replace(request, batch_size=256))
    described["heads"] = request.heads._asdict()
    return {key: _listed(value) for key, value in described.items()}


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value
