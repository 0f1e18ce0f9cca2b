# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Data sets on the Hub, pinned to the commit that a branch or tag stands for now."""

import logging
import re
from functools import partial
from pathlib import Path

from datasets import load_dataset_builder
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from ...errors import one_line
from ...retry import is_unreachable, with_retries
from .builder import gated, open_builder, read_split
from .opened import OpenedSplit, SplitRequest
from .tars import as_tars, refuse_several


logger = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")


def open_hub(request: SplitRequest) -> OpenedSplit:
    """A split of a data set on the Hub, streamed unless streaming is False.

    Raises:
        NoSuchSplit: there is none of that name.
        ValueError: it cannot be found, reached or read; one line.
    """
    name = request.dataset
    if not _HUB_ID.match(name) or name.startswith("."):
        raise ValueError(f"dataset: there is no folder or file {name!r}, and it is no Hub id (owner/name) either.")
    try:
        revision = _pinned_revision(name, request.revision)
    except _Unreachable as error:
        return _open_cached(request, error)
    builder = as_tars(open_builder(name, request.config, revision))
    data = read_split(builder, request.split, request.streaming is not False, name)
    refuse_several(builder, name, request)
    return OpenedSplit(data, name, revision=revision, remote=True)


class _Unreachable(ValueError):
    """Nobody was there to ask which commit a branch stands for."""


def _open_cached(request: SplitRequest, error: _Unreachable) -> OpenedSplit:
    """The split as it was downloaded before, by a run without streaming.

    Raises:
        _Unreachable: it was not, or another revision or a stream is asked for.
    """
    name = request.dataset
    if request.streaming:
        raise error
    try:
        builder = load_dataset_builder(name, request.config)  # of the cache, where the Hub does not answer
    except Exception as missing:
        raise error from missing
    revision = Path(builder.cache_dir).name  # datasets names the folder by the commit
    if not _COMMIT.fullmatch(revision):
        raise error
    if request.revision not in (None, revision):
        raise _Unreachable(
            f"dataset: the Hub cannot be reached for {name!r}, and the cache holds revision {revision}, which may not "
            f"be {request.revision}: connect to the network, or give --revision {revision}"
        )
    logger.warning("The Hub cannot be reached: %s is read from the cache, at revision %s", name, revision)
    return OpenedSplit(read_split(builder, request.split, False, name), name, revision=revision, remote=True)


def _pinned_revision(name: str, revision: str | None) -> str:
    """The commit that a branch, tag or None stands for now."""
    try:
        # The first that is asked of the Hub: without a network there is nothing to wait for.
        ask = partial(HfApi().dataset_info, name, revision=revision)
        return with_retries(ask, f"Looking up {name}", wait_for_network=False).sha
    except GatedRepoError as error:
        raise gated(name) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"revision: the data set {name} has no revision {revision!r} on the Hub.") from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"dataset: there is no data set {name!r} on the Hub "
            "(or it is private and you are not logged in: `hf auth login`), and no local folder of that name."
        ) from error
    except Exception as error:
        if is_unreachable(error):
            raise _Unreachable(
                f"dataset: the Hub cannot be reached for {name!r}: connect to the network (and unset HF_HUB_OFFLINE), "
                f"or give a local folder ({one_line(error, 300)})."
            ) from error
        raise ValueError(f"dataset: the Hub could not be asked for {name!r}: {one_line(error, 300)}") from error
