# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Hard data, in common: every regularizer at its own lambda, and VISReg with the paper's heavier shape."""

from pathlib import Path
from typing import Any

from ..objective import REGULARIZERS
from ..run_folder import Json
from . import figures
from .comparison import OWN_LAMBDA, UNTRAINED, Entry, Outcomes, draw_entries, untrained
from .records import points


HEAVIER = 4.0  # weight of shape (paper: monotonically better up to 4 : 1)
SHAPED = f"VISReg, shape {HEAVIER:g} : 1"


def entries(data: Json, probe: Json) -> list[Entry]:
    """`data`: options that make the data hard; `probe`: those of them that the untrained model sees too."""
    found = [Entry(figures.TITLES["visreg"], data), Entry(SHAPED, {**data, "shape_weight": HEAVIER})]
    for name in REGULARIZERS[1:]:
        changes = {**data, "regularizer": name, "regularization_weight": OWN_LAMBDA.get(name)}
        found.append(Entry(figures.TITLES[name], changes, name))
    return [*found, untrained(**probe)]


def measure(outcomes: Outcomes, kind: str, **more: Any) -> Json:
    """The record; `kind` names the data in the claims."""
    linear, ours = outcomes.linear, figures.TITLES["visreg"]
    best = max((ours, SHAPED), key=lambda name: sum(outcomes.values("validation")[name]))
    claims = [
        points(f"On {kind} VISReg learns (linear, above untrained)", linear[ours], linear[UNTRAINED]),
        points(f"On {kind} a heavier shape is above equal weights (linear)", linear[SHAPED], linear[ours]),
    ]
    for name in REGULARIZERS[1:]:
        title = figures.TITLES[name]
        statement = f"On {kind} the better of the two VISReg ({best}, by validation) is above {title} (linear)"
        claims.append(points(statement, linear[best], linear[title]))
    return outcomes.record([outcomes.accuracy_table(f"Regularizers on {kind}")], claims, **more)


def draw(record: Json, message: str, path: Path) -> list[str]:
    colors = {title: figures.COLORS[name] for name, title in figures.TITLES.items()}
    return draw_entries(record, message, path, colors)
