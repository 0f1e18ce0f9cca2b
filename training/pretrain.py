# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Pretraining from stream to checkpoint: `visreg pretrain` and `accelerate launch -m visreg_training.pretrain`.

`execute` is the whole story, `train` its loop; each name is a door to a room of loop/ or monitoring/.
"""

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from .config import PretrainOptions, from_keywords, parse, recipe_table
from .errors import EXIT_INTERRUPTED, RunStopped, UserError, exit_codes, setting_up
from .loop.checkpoint import Checkpoints, claim_folder, restore
from .loop.hub_pusher import HubPusher
from .loop.run import Run, build_run, start_trackers
from .loop.updates import prepare, updates
from .loop.views import build_batches
from .monitoring.agreement import Agreement
from .monitoring.guards import Signals, end_in_one_line
from .monitoring.held_out import build_held_out
from .monitoring.probes import build_probes
from .monitoring.record import announce, finish, first_accuracy
from .monitoring.reporter import Reporter
from .scripts import workers_import_this_call


def pretrain(**options: Any) -> dict[str, Any]:
    """Pretrain from Python: `pretrain(dataset="my_photos", output_dir="out")`; options are those of a recipe.

    `config` names a recipe that the other options override.

    Returns:
        The content of summary.json.

    Raises:
        UserError: an option is unknown or its value refused; nothing was started.
        RunStopped: a guard or a signal ended the run.
    """
    given = from_keywords(**options)
    if given.num_workers and workers_import_this_call():
        # They would come here too, and end before they read what they are sent, which Python waits for without end.
        raise UserError("spawned workers would run this script again: call it below if __name__ == '__main__'")
    return execute(given)


def main(argv: list[str] | None = None) -> None:
    """The command line; exit codes are those of errors.py."""
    with exit_codes("visreg pretrain"):
        argv = sys.argv[1:] if argv is None else argv
        if "--list_recipes" in argv:
            print(recipe_table())
        else:
            execute(parse(argv))


def execute(options: PretrainOptions) -> dict[str, Any]:
    """One pretraining run, begun or continued; returns its summary."""
    with setting_up():
        run = build_run(options)
        resumed = claim_folder(run)
    with run.folder.lock:
        with setting_up():
            start_trackers(run)
        return carry_out(run, resumed)


def carry_out(run: Run, resumed: Path | None) -> dict[str, Any]:
    """A run whose folder is claimed, to its end; returns its summary."""
    pusher = HubPusher(run)
    try:
        with end_in_one_line():
            announce(run, resumed)
            before = first_accuracy(run)
            seconds = train(run, resumed, pusher)
            summary = finish(run, before, seconds)
            pusher.run_finished()
            return summary
    finally:
        pusher.close()
        run.accelerator.end_training()


def train(run: Run, resumed: Path | None, pusher: HubPusher) -> float:
    """Every update of the run; returns the seconds they took, those before a resume included."""
    options, last = run.options, run.schedule.total_steps
    trainer = prepare(run)
    state = restore(resumed, run.model, trainer.optimizer)
    checkpoints = Checkpoints(run.folder, options.keep_last, options.keep_best, run.accelerator)
    with setting_up():
        report = Reporter(run, state, build_probes(run, state), build_held_out(run))
        batches = build_batches(run, state.positions, state.step)

    saved = resumed
    with Signals(run.is_main) as signals, report, closing(batches):
        agreement = Agreement(signals, options.save_minutes)
        for update in updates(run, trainer, batches, state.step):
            report.add(update)
            done = update.step + 1
            if report.due(update.step):
                report.read(update, batches.wait_seconds, saved)
                report.draw(at_least=30)
            stop, save = agreement.decide(report.due(update.step))
            if done % options.save_every == 0 or done == last or stop or save:
                saved = checkpoints.write(run.model, trainer.optimizer, report.state(done, batches.position()))
                agreement.saved()
                pusher.checkpoint_written()
            if stop and done != last:
                raise RunStopped(f"stopped by a signal; `--resume auto` goes on from {saved}", EXIT_INTERRUPTED)
    return report.timer.seconds()


if __name__ == "__main__":
    main()
