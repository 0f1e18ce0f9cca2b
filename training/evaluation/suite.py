# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One protocol on every data set of a suite; it can be cut off and goes on where it was."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..backbones import Backbone
from ..distributed import broadcast_object, process_state, raise_on_all_ranks
from ..errors import one_line
from ..run_folder import Json
from .cache import FeatureCache
from .options import FeatureOptions, ReadOptions
from .protocols import get_protocol, name_of, protocol_names
from .reports.results import read_result, write_result
from .run import evaluate
from .splits import Sources, open_sources
from .suite_datasets import ENTRIES, SUITES, Entry


logger = logging.getLogger(__name__)


def suite_protocols() -> list[str]:
    """The protocols whose data the suites have."""
    return [name for name in protocol_names() if get_protocol(name).in_suites]


def run_suite(
    backbone: Backbone,
    suite: str,
    options: Any,
    folder: Path,
    features: FeatureOptions | None = None,
    cache: FeatureCache | None = None,
    sources: dict[str, str] | None = None,
    batch_size: int = 256,
    say: Callable[[str], None] = logger.info,
    reading: ReadOptions | None = None,
) -> tuple[list[Json], dict[str, str]]:
    """Every data set of a suite: (results, reason why by key of those that could not be reached).

    Each result is written to `folder` as soon as it is there; a second call takes those that are (same weights, same
    request) and goes on with the others.

    Args:
        suite: a key of `SUITES`, or keys of entries with commas between them.
        options: of the protocol, as in `evaluate`.
        reading: how images are read; None for the defaults.
        sources: local folder or Hub id to use in the place of an entry's own, by key.

    Raises:
        ValueError: a key is not known, or the suites do not have what the protocol needs.
    """
    process_state()  # first: the ranks that are asked below have to know of each other
    keys, name = suite_keys(suite), name_of(options)
    features = features or FeatureOptions(layers=get_protocol(name).layers)
    if unknown := set(sources or {}) - set(keys):
        raise ValueError(f"source: {', '.join(sorted(unknown))} is not in the suite; it has {', '.join(keys)}")
    if not get_protocol(name).in_suites:
        raise ValueError(f"the data sets of suites do not have what {name} needs")
    request = request_of(options, features, reading or ReadOptions())
    results, unreached = [], {}
    for key in keys:
        path = folder / f"{name}-{key}.json"
        found = broadcast_object(finished(path, backbone, request))
        if found is not None:
            say(f"{key}: taken from {path.name}")
            results.append(found)
            continue
        try:
            with raise_on_all_ranks():
                opened = open_entry(ENTRIES[key], (sources or {}).get(key), reading)
            result = evaluate(backbone, opened, options, features, cache, batch_size, folder / f"{name}-{key}", key)
        except (OSError, ValueError, RuntimeError) as error:
            unreached[key] = one_line(error)
            say(f"{key}: not reached: {unreached[key]}")
            continue
        if result is not None:
            result["request"] = request
            write_result(result, path)
            say(f"{key}: {result['metric']} {100 * (result['value'] or 0):.1f} %")
            results.append(result)
    return results, unreached


def suite_keys(suite: str) -> tuple[str, ...]:
    """The keys of the entries of a suite.

    Raises:
        ValueError: there is no such suite or entry.
    """
    keys = SUITES.get(suite) or tuple(part.strip() for part in suite.split(","))
    if unknown := [key for key in keys if key not in ENTRIES]:
        raise ValueError(
            f"there is no suite or data set {', '.join(unknown)}; suites are {', '.join(SUITES)}, "
            f"data sets {', '.join(ENTRIES)}"
        )
    return keys


def open_entry(entry: Entry, dataset: str | None = None, reading: ReadOptions | None = None) -> Sources:
    """The splits of an entry, or of `dataset` in its place (splits of the entry, columns found).

    Args:
        reading: how images are read; None for the defaults.

    Raises:
        ValueError: the entry has no Hub copy, or it cannot be opened.
    """
    if dataset is None and entry.dataset is None:
        raise ValueError(f"no copy on the Hub is known; get it from {entry.origin} and name its folder with --source")
    columns = {"image_column": entry.image_column, "label_column": entry.label_column, "dataset_config": entry.config}
    options = (columns if dataset is None else {}) | (reading or ReadOptions()).reading()
    splits = {"train_split": entry.train, "test_split": entry.test, "validation_split": entry.validation}
    return open_sources(dataset or entry.dataset, **splits, train_share=entry.train_share, **options)


def finished(path: Path, backbone: Backbone, request: Json) -> Json | None:
    """An earlier result of the same weights and request."""
    if not path.is_file():
        return None
    try:
        found = read_result(path)
    except ValueError:
        return None
    same = found["model"].get("weights") == backbone.weights_hash and found.get("request") == request
    return found if same else None


def request_of(options: Any, features: FeatureOptions, reading: ReadOptions) -> Json:
    """What was asked for, as a JSON file gives it back."""
    described = {"protocol": name_of(options), "features": asdict(features), "options": asdict(options)}
    return json.loads(json.dumps(described | asdict(reading)))
