# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Pretraining from stream to checkpoint: `visreg pretrain` and `accelerate launch -m visreg_training.pretrain`.

`run` is the whole story, `train` its loop; each name is a door to one room of loop/, data/ or objective/.
V views, B images of a rank; views of one resolution are (V_r, B, C, H, W).
"""

import sys
import types
from contextlib import closing
from typing import Any

from .errors import EXIT_INTERRUPTED, RunStopped, exit_codes, setting_up
from .loop.assembly import (
    Run,
    assemble,
    make_batches,
    make_held_out,
    make_probes,
    make_step,
    seed_model,
    start_trackers,
)
from .loop.config import Arguments, as_flags, check_names, parse, recipe_table
from .loop.guards import Signals, run_stopped
from .loop.monitors import Timer
from .loop.optimization import Updater, make_optimizer
from .loop.ranks import everybody
from .loop.reporting import Reporter
from .loop.results import announce, finish, first_accuracy
from .loop.sharing import Sharing


def pretrain(**options: Any) -> dict[str, Any]:
    """Pretrain from Python: `pretrain(dataset="my_photos", output_dir="out")`; options are those of a recipe.

    `config` names a recipe that the other options override.

    Returns:
        The content of summary.json.

    Raises:
        UserError: an option is unknown or its value refused; nothing was started.
        RunStopped: a guard or a signal ended the run.
    """
    check_names([name for name in options if name != "config"], "the call")
    return run(parse(as_flags(options)))


def main(argv: list[str] | None = None) -> None:
    """The command line; exit codes are those of errors.py."""
    with exit_codes("visreg pretrain"):
        argv = sys.argv[1:] if argv is None else argv
        if "--list_recipes" in argv:
            print(recipe_table())
        else:
            run(parse(argv))


def run(arguments: Arguments) -> dict[str, Any]:
    """One pretraining run, begun or continued; returns its summary."""
    with setting_up():
        parts = assemble(arguments)
        start_trackers(parts)
    sharing = Sharing(parts)
    try:
        with run_stopped():
            announce(parts)
            before = first_accuracy(parts)
            seconds = train(parts, sharing)
            summary = finish(parts, before, seconds)
            sharing.run_finished()
            return summary
    finally:
        sharing.close()
        parts.accelerator.end_training()


def train(parts: Run, sharing: Sharing) -> float:
    """Every update of the run; returns the seconds they took, those before a resume included."""
    options, plan, accelerator = parts.arguments.run, parts.plan, parts.accelerator
    step_module = make_step(parts)
    optimizer = make_optimizer(step_module, plan.learning_rate, options.weight_decay)
    step_module, prepared_optimizer = accelerator.prepare(step_module, optimizer)
    state = parts.checkpoints.restore(parts.resumed, parts.model, optimizer)
    schedule = plan.schedule(options.final_learning_rate_ratio)
    update = Updater(accelerator, prepared_optimizer, step_module, options.clip_norm)
    probes = make_probes(parts, state)
    report = Reporter(parts, state, probes, make_held_out(parts))
    with setting_up():
        batches = make_batches(parts, state)
    timer, saved = Timer(state["seconds"]), parts.resumed

    step_module.train()
    with Signals() as signals, report, closing(batches):
        for step in range(state["step"], plan.total_steps):
            batch = next(batches)
            seed_model(options.seed, step, accelerator.process_index)
            output = step_module(batch.views, step)
            norm, skipped = update(output.terms.total, schedule.learning_rate(step))
            report.add(step, output, norm, skipped, batch)

            ends_here = step + 1 == plan.total_steps
            stop = signals.received and accelerator.num_processes == 1
            if report.due(step):
                report.read(step, output, schedule.learning_rate(step), batches.wait_seconds, saved)
                stop = any(everybody(accelerator, bool(signals.received)))
            if (step + 1) % options.save_every == 0 or ends_here or stop:
                positions = everybody(accelerator, batches.position())
                saved = parts.checkpoints.write(
                    step + 1, parts, optimizer, positions, probes, report.progress_made(timer)
                )
                report.draw(at_least=30)
                sharing.checkpoint_written()
            if stop and not ends_here:
                raise RunStopped(f"stopped by a signal; `--resume auto` goes on from {saved}", EXIT_INTERRUPTED)
    return timer.seconds()


class CallableModule(types.ModuleType):
    """Lets `from visreg_training import pretrain; pretrain(...)` work: one name, for module and function."""

    def __call__(self, **options: Any) -> dict[str, Any]:
        return pretrain(**options)


sys.modules[__name__].__class__ = CallableModule


if __name__ == "__main__":
    main()
