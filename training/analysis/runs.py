# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One short training and its accuracies, from the parts of loop/ and evaluation/; what the analyses compare.

A run is described by the options of `visreg pretrain` and nothing else, so that equal runs of several analyses are
equal descriptions: they are trained once and kept by the hash of theirs.

V views, B images of a rank; views of one resolution are (V_r, B, C, H, W).
"""

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..evaluation.protocols.linear import LinearOptions
from ..loop.architectures import ARCHITECTURES
from ..loop.assembly import (
    Run,
    make_loader,
    make_model,
    make_step,
    make_step_augment,
    open_evaluation_source,
    open_training_source,
    seed_model,
    start_accelerator,
)
from ..loop.config import RECIPES, Arguments, as_flags, parse, read_recipe
from ..loop.folder import read_json, write_json
from ..loop.optimization import Updater, make_optimizer
from ..loop.plan import plan_run
from ..loop.results import environment
from .kept import Kept
from .options import Options
from .readings import reading


FORMAT = 1  # of the kept results
PROBE_IMAGES = 5000  # of each split, that the probes learn from and are tested on at small scale
LINEAR_EPOCHS = 20  # of the linear heads at small scale, whose accuracy has settled by then
READINGS = 6  # evaluations of the runs that `correlation` looks at:
READ_ALONG = {"learning_rate"}  # those that differ from the base run in nothing else


@dataclass(frozen=True)
class Training:
    """A run: options of `visreg pretrain` as JSON, and what is done around them.

    Attributes:
        recipe: the options, a JSON object with sorted keys.
        processes: that share the batch.
        readings: evaluations, evenly spaced over the steps; the last at the end.
        trained: False measures the model as it is initialised.
        probe_images: of each split; None for all.
        linear_epochs: of the linear heads.
    """

    recipe: str
    processes: int = 1
    readings: int = 1
    trained: bool = True
    probe_images: int | None = PROBE_IMAGES
    linear_epochs: int = LINEAR_EPOCHS

    @property
    def key(self) -> str:
        facts = json.dumps([FORMAT, asdict(self)], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    @property
    def options(self) -> dict[str, Any]:
        return json.loads(self.recipe)

    def kept(self, folder: Path) -> dict[str, Any] | None:
        """What an earlier training with this description found, or None."""
        return read_json(folder / f"{self.key}.json")


def training(options: Options, seed: int, *, processes: int = 1, trained: bool = True, **changes: Any) -> Training:
    """The run of the scale's recipe with `changes`, for one seed. The base run is read several times on its way."""
    changes = {key: value for key, value in changes.items() if value is not None}
    recipe = base_recipe(options) | changes
    if "dataset" in changes:
        recipe.pop("dataset_config", None)
    recipe |= {"seed": seed} | ({"max_steps": options.max_steps} if options.max_steps else {})
    limits = {} if options.small else {"probe_images": None, "linear_epochs": LinearOptions().epochs}
    made = Training(json.dumps(recipe, sort_keys=True), processes, trained=trained, **limits)
    return replace(made, readings=READINGS) if trained and set(changes) <= READ_ALONG and processes == 1 else made


def base_recipe(options: Options) -> dict[str, Any]:
    """The options that every run starts from."""
    name = options.config or options.pick(str(RECIPES / "analysis" / "small.yaml"), "vit_small_imagenette")
    recipe = read_recipe(name)
    recipe.pop("output_dir", None)
    if options.dataset:
        recipe.pop("dataset_config", None)
        recipe["dataset"] = options.dataset
    recipe["eval_split"] = options.eval_split or recipe.get("eval_split", "test")
    return recipe


def base_value(options: Options, name: str) -> Any:
    """An option of the base run, defaults included."""
    values = parse(as_flags(base_recipe(options)), "visreg analyze", needed=()).as_recipe()
    if name == "projection_size" and values[name] is None:
        return ARCHITECTURES[values["model"]][name]
    return values[name]


def arguments_of(run: Training) -> Arguments:
    """Raises UserError for an option that `visreg pretrain` would refuse."""
    return parse(as_flags(run.options), "visreg analyze", needed=("dataset", "eval_split"))


def perform(run: Training, folder: Path) -> dict[str, Any]:
    """Train and measure, keep the result in `folder` and return it; on several processes each calls this."""
    started = time.perf_counter()
    arguments = arguments_of(run)
    parts = assemble_run(arguments, folder)
    found = (
        train(run, parts)
        if run.trained
        else {"readings": [reading(parts, 0, None, run.probe_images, run.linear_epochs)]}
    )
    result = {
        "run": run.options | {"processes": run.processes, "trained": run.trained},
        **found,
        **found["readings"][-1],
    }
    result |= {"seconds": time.perf_counter() - started, "environment": environment()}
    if parts.accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{run.key}.json", result)
    parts.accelerator.wait_for_everyone()
    return result


def assemble_run(arguments: Arguments, folder: Path) -> Run:
    """The parts of loop/ without checkpoints, trackers and a folder of their own."""
    accelerator = start_accelerator(arguments.run)
    source = open_training_source(arguments.data, arguments.run.seed)
    plan = plan_run(arguments.run, arguments.data, arguments.objective, accelerator.num_processes, source.num_examples)
    model = make_model(arguments.model, arguments.data, arguments.run.seed)
    held_out = open_evaluation_source(arguments.data, arguments.data.eval_split)
    probe_source = open_evaluation_source(arguments.data, arguments.data.split)
    return Run(arguments, accelerator, source, held_out, probe_source, plan, model, folder, None, None)


def train(run: Training, parts: Run) -> dict[str, Any]:
    """Every update, and `run.readings` evaluations on the way."""
    options, plan, accelerator = parts.arguments.run, parts.plan, parts.accelerator
    step_module = make_step(parts)
    optimizer = make_optimizer(step_module, plan.learning_rate, options.weight_decay)
    step_module, prepared = accelerator.prepare(step_module, optimizer)
    schedule, augment = plan.schedule(options.final_learning_rate_ratio), make_step_augment(parts)
    update = Updater(accelerator, prepared, step_module, options.clip_norm)
    due = {round(plan.total_steps * (number + 1) / run.readings) for number in range(run.readings)}
    readings, interval, skipped = [], [], []
    step_module.train()
    for step, views in enumerate(view_batches(parts)):
        seed_model(options.seed, step, accelerator.process_index)
        output = step_module(augment(views, step), step)
        skipped.append(update(output.terms.total, schedule.learning_rate(step))[1])
        interval.append(torch.stack(output.terms).detach())
        if step + 1 in due:
            means = torch.stack(interval).mean(0).tolist()
            terms = dict(zip(output.terms._fields, means, strict=True))
            readings.append(reading(parts, step + 1, terms, run.probe_images, run.linear_epochs))
            interval = []
    return {"readings": readings, "skipped_updates": int(torch.stack(skipped).sum())}


def view_batches(parts: Run) -> Iterator[list[torch.Tensor]]:
    """uint8 views of each step; runs that differ in nothing that touches them share what a process keeps in memory."""
    data, plan, steps = parts.arguments.data, parts.plan, parts.plan.total_steps
    pixels = data.num_global * data.global_size**2 + data.num_local * data.local_size**2
    if data.num_workers or not VIEWS.has_room_for(steps * plan.rank_batch_size * pixels * 3):
        return read_views(parts, steps)
    facts = [repr(data), parts.arguments.run.seed, plan.rank_batch_size, parts.accelerator.process_index, steps]
    return iter(VIEWS.get(json.dumps(facts), lambda: list(read_views(parts, steps))))


VIEWS = Kept()


def read_views(parts: Run, steps: int) -> Iterator[list[torch.Tensor]]:
    with closing(make_loader(parts, {"positions": None})) as loader:
        for _ in range(steps):
            yield next(loader).views


if __name__ == "__main__":  # one of N processes: `python -m visreg_training.analysis.runs FOLDER DESCRIPTION ...`
    torch.set_num_threads(1)
    for description in sys.argv[2:]:
        perform(Training(**json.loads(description)), Path(sys.argv[1]))
