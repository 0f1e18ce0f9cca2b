# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What watches a run: meters, progress, guards, online probes, curves, and the record at its start and end.

reporter.py   one report a logging interval; the only synchronization of host and device
metrics.py    meters on the device, metrics.jsonl
progress.py   the bar or the lines, rates, time left
guards.py     not finite, collapsed, a signal, and errors from outside as one line
agreement.py  what several processes decide together: to stop, to save
probes.py     linear and kNN probe beside the run; held_out.py measures them on held-out images
curves.py     curves.png
record.py     run.json, summary.json, accuracy before and after, pca.png, the card
"""

from .agreement import Agreement
from .guards import CollapseGuard, FiniteGuard, Signals, end_in_one_line
from .held_out import HeldOut, build_held_out
from .probes import OnlineProbes, build_probes
from .record import announce, finish, first_accuracy
from .reporter import Reporter


__all__ = [
    "Agreement",
    "CollapseGuard",
    "FiniteGuard",
    "HeldOut",
    "OnlineProbes",
    "Reporter",
    "Signals",
    "announce",
    "build_held_out",
    "build_probes",
    "end_in_one_line",
    "finish",
    "first_accuracy",
]
