# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`analyze`: what the analyses need is trained once and cached, then each writes its record and figures."""

import sys
from typing import Any

from ..errors import setting_up
from ..run_folder import Json
from .comparison import Outcomes, trainings_of
from .options import AnalysisOptions, module_of
from .pool import perform_all
from .records import finished, write_record
from .report import write_report
from .runs import build_training_run, options_of, training


def analyze(names: list[str], options: AnalysisOptions) -> dict[str, Json]:
    """Run analyses and write `NAME.json`, their figures and `report.md` into `options.output_dir`.

    What an earlier call finished with the same settings is not done again: results of collapse and cost as they are,
    trainings by the hash of their options.

    Raises:
        UserError: the data or an option will not do.
    """
    modules = {name: module_of(name) for name in names}
    training_ones = {name: module for name, module in modules.items() if hasattr(module, "entries")}
    with setting_up():
        options.output_dir.mkdir(parents=True, exist_ok=True)
        if training_ones:
            check(options)
    records = {name: computed(name, modules[name], options) for name in names if name not in training_ones}
    for module in training_ones.values():
        if hasattr(module, "prepare"):
            module.prepare(options)
    entries = {name: module.entries(options) for name, module in training_ones.items()}
    trainings = [one for listed in entries.values() for one in trainings_of(options, listed)]
    results = perform_all(trainings, options.output_dir / "runs", options.workers)
    for name, module in training_ones.items():
        outcomes = Outcomes(options, entries[name], results)
        records[name] = write_record(options.output_dir, name, module.measure(outcomes))
        draw(name, module, records[name], options)
    path = write_report(options.output_dir)
    print(f"report   {path}")
    return records


def check(options: AnalysisOptions) -> None:
    """Refuse what the first run would refuse, before any starts."""
    build_training_run(options_of(training(options, options.all_seeds[0])), options.output_dir)


def computed(name: str, module: Any, options: AnalysisOptions) -> Json:
    """The record of an analysis that trains nothing, measured now or before."""
    record = finished(options.output_dir, name, module.settings(options))
    if record is None:
        print(f"{name} ...", file=sys.stderr, flush=True)
        record = write_record(options.output_dir, name, module.measure(options))
    draw(name, module, record, options)
    return record


def draw(name: str, module: Any, record: Json, options: AnalysisOptions) -> None:
    figures = module.draw(record, options.output_dir)
    verdicts = [found["verdict"] for found in record["claims"]]
    counted = ", ".join(f"{verdicts.count(one)} {one}" for one in dict.fromkeys(verdicts))
    print(f"{name:<15} {', '.join(figures)}: of {len(verdicts)} claims, {counted}")
