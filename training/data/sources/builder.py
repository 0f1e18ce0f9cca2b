# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The builders of `datasets`: tried again where a failure passes by itself, and failing in one line."""

from typing import Any

from datasets import Dataset, DatasetBuilder, IterableDataset, load_dataset_builder
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

from ...errors import one_line
from ...retry import http_status, is_transient, with_retries
from .opened import NoSuchSplit


def open_builder(path: str, config: str | None = None, revision: str | None = None, **options: Any) -> DatasetBuilder:
    """`load_dataset_builder`.

    Raises:
        ValueError: the data cannot be opened, or are gated.
    """

    def load() -> DatasetBuilder:
        return load_dataset_builder(path, config, revision=revision, **options)

    try:
        return with_retries(load, f"Opening {path}")
    except Exception as error:
        if _is_gated(error):
            raise gated(path) from error
        raise ValueError(f"dataset: {path} cannot be opened: {one_line(error, 300)}") from error


def read_split(builder: DatasetBuilder, split: str, streaming: bool, name: str) -> Dataset | IterableDataset:
    """One split of a builder's data, as a stream or downloaded and prepared.

    Raises:
        NoSuchSplit: there is none of that name.
        ValueError: it cannot be read, or is gated.
    """
    known = list(builder.info.splits or builder.config.data_files or [])
    if known and split not in known:
        raise NoSuchSplit(f"split: {name} has no split {split!r}; the splits are {', '.join(map(str, known))}.")
    try:
        if streaming:
            return with_retries(lambda: builder.as_streaming_dataset(split=split), f"Opening {name}")
        with_retries(builder.download_and_prepare, f"Downloading {name}")
        return builder.as_dataset(split=split)
    except Exception as error:
        if _is_gated(error):
            raise gated(name) from error
        if is_transient(error) or isinstance(error, HfHubHTTPError):
            raise ValueError(f"dataset: the Hub does not serve {name}: {one_line(error, 300)}") from error
        raise ValueError(f"dataset: {name} cannot be read: {one_line(error.__cause__ or error, 300)}") from error


def _is_gated(error: Exception) -> bool:
    """Whether the Hub has the data and refuses them. `datasets` cuts the chain of causes where it says so, and its own
    DatasetNotFoundError is all that is left: that there is such a data set was asked before (hub.py).
    """
    return isinstance(error, GatedRepoError | DatasetNotFoundError) or http_status(error) in (401, 403)


def gated(name: str) -> ValueError:
    """The error for a data set whose conditions were not accepted."""
    return ValueError(
        f"dataset: {name} is gated: accept its conditions on its page on the Hub, then log in with `hf auth login`."
    )
