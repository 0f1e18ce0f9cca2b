# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One short training and its accuracies, on the same update loop and protocols as everything else.

A training is described by the options of `visreg pretrain` and nothing else, so that equal trainings of several
analyses are equal descriptions: they are run once and cached by the hash of theirs.

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

from ..config import ARCHITECTURES, RECIPES, PretrainOptions, from_keywords, read_recipe
from ..data import MultiCrop, MultiViewBatch
from ..evaluation.protocols.linear import LinearOptions
from ..loop.run import Run, build_run, open_evaluation_source
from ..loop.updates import prepare, updates
from ..loop.views import build_loader, build_step_augment
from ..monitoring.record import environment
from ..option import take
from ..run_folder import Json, read_json, write_json
from .accuracy import measure_backbone
from .memory_cache import MemoryCache
from .options import AnalysisOptions


FORMAT = 1  # of the cached results
PROBE_IMAGES = 5000  # of each split, that the probes learn from and are tested on at small scale
LINEAR_EPOCHS = 20  # of the linear heads at small scale, whose accuracy has settled by then
EVALUATIONS = 6  # of the trainings that `correlation` looks at:
EVALUATED_ALONG = {"learning_rate"}  # those that differ from the base training in nothing else


@dataclass(frozen=True)
class Training:
    """Options of `visreg pretrain` as JSON, and what is done around them.

    Attributes:
        recipe: the options, a JSON object with sorted keys.
        processes: that share the batch.
        evaluations: evenly spaced over the steps; the last at the end.
        trained: False measures the model as it is initialized.
        probe_images: of each split; None for all.
        linear_epochs: of the linear heads.
    """

    recipe: str
    processes: int = 1
    evaluations: int = 1
    trained: bool = True
    probe_images: int | None = PROBE_IMAGES
    linear_epochs: int = LINEAR_EPOCHS

    @property
    def key(self) -> str:
        """Name of the cached result."""
        content = json.dumps([FORMAT, asdict(self)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def options(self) -> Json:
        """The options as `visreg pretrain` takes them."""
        return json.loads(self.recipe)

    def cached(self, folder: Path) -> Json | None:
        """What an earlier training with this description found, or None."""
        return read_json(folder / f"{self.key}.json")


def training(
    options: AnalysisOptions, seed: int, *, processes: int = 1, trained: bool = True, **changes: Any
) -> Training:
    """The scale's recipe with `changes`, for one seed. The base training is evaluated several times on its way."""
    changes = {key: value for key, value in changes.items() if value is not None}
    recipe = base_recipe(options) | changes
    if "dataset" in changes:
        recipe.pop("dataset_config", None)
    recipe |= {"seed": seed} | ({"max_steps": options.max_steps} if options.max_steps else {})
    limits: Json = {} if options.small else {"probe_images": None, "linear_epochs": LinearOptions().epochs}
    made = Training(json.dumps(recipe, sort_keys=True), processes, trained=trained, **limits)
    along = trained and set(changes) <= EVALUATED_ALONG and processes == 1
    return replace(made, evaluations=EVALUATIONS) if along else made


def base_recipe(options: AnalysisOptions) -> Json:
    """The options that every training starts from."""
    name = options.config or options.pick(str(RECIPES / "analysis" / "small.yaml"), "vit_small_imagenette")
    recipe = read_recipe(name)
    recipe.pop("output_dir", None)
    if options.dataset:
        recipe.pop("dataset_config", None)
        recipe["dataset"] = options.dataset
    recipe["eval_split"] = options.eval_split or recipe.get("eval_split", "test")
    return recipe


def base_value(options: AnalysisOptions, name: str) -> Any:
    """An option of the base training, defaults included."""
    base = from_keywords((), **base_recipe(options))
    if name == "projection_size" and base.projection_size is None:
        return ARCHITECTURES[base.model][name]
    return getattr(base, name)


def options_of(one: Training) -> PretrainOptions:
    """Raises UserError for an option that `visreg pretrain` would refuse."""
    return from_keywords(("dataset", "eval_split"), **one.options)


def perform(one: Training, folder: Path) -> Json:
    """Train and measure, cache the result in `folder` and return it; on several processes each calls this."""
    started = time.perf_counter()
    run = build_training_run(options_of(one), folder)
    found = train(one, run) if one.trained else {"evaluations": [measure(one, run, 0, None)]}
    result = {
        "run": one.options | {"processes": one.processes, "trained": one.trained},
        **found,
        **found["evaluations"][-1],
    }
    seen = run.schedule.total_steps * run.schedule.global_batch_size
    result |= {"epochs": seen / run.source.num_examples if run.source.num_examples else 0.0}
    result |= {"seconds": time.perf_counter() - started, "environment": environment()}
    if run.is_main:
        write_json(folder / f"{one.key}.json", result)
    run.accelerator.wait_for_everyone()
    return result


def build_training_run(options: PretrainOptions, folder: Path) -> Run:
    """A run without checkpoints and trackers; the probes learn from the whole split, not from a subset of it."""
    run = build_run(replace(options, output_dir=str(folder)), choose_missing=False)
    return replace(run, probe_source=open_evaluation_source(options, options.split))


def measure(one: Training, run: Run, step: int, terms: dict[str, float] | None) -> Json:
    """Step, terms since the last evaluation, accuracies now; {} on all processes but the main one."""
    if not run.is_main:
        return {}
    return {"step": step, "terms": terms, **measure_backbone(run, one.probe_images, one.linear_epochs)}


def train(one: Training, run: Run) -> Json:
    """Every update, and `one.evaluations` evaluations on the way."""
    last = run.schedule.total_steps
    due = {round(last * (number + 1) / one.evaluations) for number in range(one.evaluations)}
    evaluations, interval, skipped = [], [], []
    for update in updates(run, prepare(run), SharedViews(run)):
        skipped.append(update.skipped)
        interval.append(torch.stack(update.output.terms).detach())
        if update.step + 1 in due:
            means = torch.stack(interval).mean(0).tolist()
            terms = dict(zip(update.output.terms._fields, means, strict=True))
            evaluations.append(measure(one, run, update.step + 1, terms))
            interval = []
    return {"evaluations": evaluations, "skipped_updates": int(torch.stack(skipped).sum())}


class SharedViews:
    """Batches whose uint8 views trainings share that differ in nothing that touches them; colored anew for each."""

    def __init__(self, run: Run):
        self.batches, self.augment, self.step = loaded_batches(run), build_step_augment(run), 0

    def __next__(self) -> MultiViewBatch:
        batch = next(self.batches)
        views, self.step = self.augment(batch.views, self.step), self.step + 1
        return batch._replace(views=views)


def loaded_batches(run: Run) -> Iterator[MultiViewBatch]:
    """uint8 views of each step, from memory where they fit."""
    options, schedule = run.options, run.schedule
    pixels = options.num_global * options.global_size**2 + options.num_local * options.local_size**2
    size = schedule.total_steps * schedule.rank_batch_size * pixels * 3
    if options.num_workers or not VIEWS.has_room_for(size):
        return load_batches(run)
    key = [run.source.fingerprint, repr(take(MultiCrop, options)), options.augment_backend, options.seed]
    key += [schedule.rank_batch_size, run.accelerator.process_index, schedule.total_steps]
    return iter(VIEWS.get(json.dumps(key), lambda: list(load_batches(run))))


VIEWS = MemoryCache()


def load_batches(run: Run) -> Iterator[MultiViewBatch]:
    """Every batch of the run, straight from the loader."""
    with closing(build_loader(run)) as loader:
        for _ in range(run.schedule.total_steps):
            yield next(loader)


if __name__ == "__main__":  # one of N processes: `python -m visreg_training.analysis.runs FOLDER DESCRIPTION ...`
    torch.set_num_threads(1)
    for description in sys.argv[2:]:
        perform(Training(**json.loads(description)), Path(sys.argv[1]))
