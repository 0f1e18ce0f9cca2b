# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One evaluation, of any protocol: from a model and its data to the content of a result file.

result = evaluate(open_backbone("out"), open_sources("digits"), KnnOptions(k=(20,)))
"""

import time
from pathlib import Path
from typing import Any

from ..backbones import Backbone
from ..distributed import process_state
from ..run_folder import Json
from .cache import FeatureCache
from .inputs import Inputs
from .options import FeatureOptions
from .protocols import get_protocol, name_of, preset_of
from .reports.results import make_result
from .splits import Sources


def evaluate(
    backbone: Backbone,
    sources: Sources,
    options: Any,
    features: FeatureOptions | None = None,
    cache: FeatureCache | None = None,
    batch_size: int = 256,
    folder: Path | None = None,
    entry: str | None = None,
) -> Json | None:
    """The content of a result file, on the main process; the others help and get None.

    Args:
        options: `KnnOptions()`, `LinearOptions(...)`, ...: which protocol, and how.
        features: what is taken of the model, where the protocol takes features of images; None for the defaults, of
            which the number of blocks is the protocol's.
        cache: of features; None for the user's.
        batch_size: images that are embedded at once.
        folder: where `finetune` leaves the network.
        entry: key of the data set in the table of suites.

    Raises:
        ValueError: the data or an option is not what the protocol needs.
    """
    name, state = name_of(options), process_state()
    protocol = get_protocol(name)
    features = features or FeatureOptions(layers=protocol.layers)
    inputs = Inputs(backbone.to(state.device), sources, features, cache, batch_size, folder)
    started = time.perf_counter()
    outcome = protocol.evaluate(inputs, options)
    seconds = {"total": time.perf_counter() - started}
    if not state.is_main_process:
        return None
    if inputs.feature_seconds is not None:
        own = seconds["total"] - inputs.feature_seconds
        seconds = {"features": inputs.feature_seconds, "protocol": own, "total": seconds["total"]}
    taken = outcome.features or inputs.feature_record()
    outcome.settings["protocol"] = preset_of(options, features)
    outcome.notes = inputs.notes + outcome.notes
    data = sources.descriptions() | inputs.images
    return make_result(name, outcome, backbone.description(), data, taken, seconds, entry)
