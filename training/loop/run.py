# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""From options to the parts that exist before the first step: images, model, schedule, processes, the run's folder.

Nothing is written here: a run that cannot start leaves nothing behind.
"""

from dataclasses import asdict, dataclass
from datetime import timedelta

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.tracking import get_available_trackers
from accelerate.utils import InitProcessGroupKwargs
from transformers.utils.logging import disable_progress_bar

from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining

from ..backbones import (
    AdaptOptions,
    adapt,
    build_pretraining_model,
    change_native_size,
    continue_pretraining_model,
    wrap_backbone,
)
from ..compat import enable_activation_checkpointing, reset_accelerate
from ..config import (
    PretrainOptions,
    TrainingSchedule,
    check_crops,
    check_shape_options,
    config_from,
    training_schedule,
)
from ..config.defaults import fill_defaults
from ..config.estimate import activation_width
from ..data import Source, SourceOptions, Subset, open_stream
from ..distributed import on_cpu
from ..errors import UserError
from ..evaluation.splits import label_map
from ..objective import VISRegObjective
from ..objective.options import ObjectiveOptions
from ..option import take
from ..run_folder import RunFolder, model_directory
from ..seeding import seed_of
from .compiling import compile_backbone, compile_mode
from .step import PretrainingStep


@dataclass(frozen=True)
class Run:
    """The parts of one run that exist before its first step.

    Attributes:
        options: every option, with the defaults that were chosen.
        held_out: images of `eval_split`, None without one; `probe_source`: what classifiers on them learn from.
        schedule: batch sizes, steps, and the learning rate.
        model: unwrapped; the step shares its parameters.
    """

    options: PretrainOptions
    accelerator: Accelerator
    source: Source
    held_out: Source | None
    probe_source: Source
    schedule: TrainingSchedule
    model: VISRegViTForPreTraining
    folder: RunFolder

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.accelerator.is_main_process

    @property
    def probed(self) -> bool:
        """Whether online probes run beside it: they need labels."""
        return bool(self.options.online_probe and self.source.label_names)


def build_run(options: PretrainOptions, choose_missing: bool = True) -> Run:
    """Make every part, or refuse: nothing is written before all of them fit together.

    Args:
        options: of the run.
        choose_missing: without a recipe, choose what was not given from the images and the device.

    Raises:
        UserError, ValueError, OSError: an option, the data or the checkpoint to start from will not do.
    """
    check_shape_options(options)
    accelerator = start_accelerator(options)
    source = open_training_source(options)
    held_out = open_evaluation_source(options, options.eval_split) if options.eval_split else None
    own_labels = options.eval_dataset in (None, options.dataset)
    probe_source = source if own_labels else open_evaluation_source(options, "train")
    if held_out is not None:
        check_labels(probe_source, held_out)
    if choose_missing and "config" not in options.given:
        options = choose_defaults(options, source, accelerator)
    schedule = training_schedule(options, accelerator.num_processes, source.num_examples)
    model = build_model(options)
    compile_backbone(model.base_model, options.compile, accelerator.device, accelerator.is_main_process)
    build_objective(options)
    return Run(options, accelerator, source, held_out, probe_source, schedule, model, RunFolder(options.output_dir))


def choose_defaults(options: PretrainOptions, source: Source, accelerator: Accelerator) -> PretrainOptions:
    """Without a recipe: choose what was not given from the images and the device, and say what and why."""
    device = accelerator.device
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    compiled = compile_mode(options.compile, device) == "blocks"
    width = activation_width(accelerator.mixed_precision == "bf16", compiled)
    options, lines = fill_defaults(
        options,
        source,
        device,
        accelerator.num_processes,
        meta_step=build_step_on_meta,
        memory=memory,
        width=width,
    )
    accelerator.print("\n".join(lines))
    return options


def build_step_on_meta(options: PretrainOptions, config: VISRegViTConfig) -> PretrainingStep:
    """The step of a run without memory behind it, for estimates."""
    with torch.device("meta"):
        model = build_pretraining_model(config)
    adapt(wrap_backbone(model), take(AdaptOptions, options))
    if options.activation_checkpointing:
        enable_activation_checkpointing(model)
    return PretrainingStep(model, build_objective(options), options.num_global)


def start_accelerator(options: PretrainOptions) -> Accelerator:
    """Accelerate with our precision, and DDP's gradients as views of the buckets (one copy of them less).

    Buffers are not broadcast: with statistics over the whole batch every rank computes the same ones.
    """
    disable_progress_bar()  # of transformers: a bar for each file of a checkpoint
    precision = options.mixed_precision
    if precision == "auto":
        on_gpu = torch.cuda.is_available() and not on_cpu()
        precision = "bf16" if on_gpu and torch.cuda.is_bf16_supported() else "no"
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    reset_accelerate()  # of an earlier run of this program, with another precision perhaps
    return Accelerator(
        cpu=on_cpu(),  # without it several processes on CPUs do not find each other
        mixed_precision=precision,
        # The main process evaluates and writes alone while the others wait: minutes are no failure.
        kwargs_handlers=[ddp, InitProcessGroupKwargs(timeout=timedelta(hours=3))],
        log_with=tracker_names(options.report_to) or None,
        project_dir=options.output_dir,
    )


def tracker_names(report_to: str) -> list[str]:
    """The trackers asked for.

    Raises:
        UserError: one of them is unknown to Accelerate or not installed.
    """
    names = [name.strip() for name in report_to.split(",") if name.strip() not in ("", "none")]
    installed = [str(tracker.value) for tracker in get_available_trackers()]
    for name in names:
        if name not in installed:
            raise UserError(f"report_to: '{name}' is not installed; here are {', '.join(installed) or 'none'}")
    return names


def start_trackers(run: Run) -> None:
    """Open the trackers with the run's recipe; they flatten no lists."""
    if run.accelerator.log_with:
        recipe = {name: str(value) for name, value in run.options.as_recipe().items()}
        run.accelerator.init_trackers("visreg", config=recipe)


def open_training_source(options: PretrainOptions) -> Source:
    """The images to learn from."""
    where = asdict(take(SourceOptions, options))
    return open_stream(**where, subset=take(Subset, options), max_bad_share=options.max_bad_share)


def open_evaluation_source(options: PretrainOptions, split: str) -> Source:
    """A split of the labeled data set that measures the features."""
    if options.eval_dataset not in (None, options.dataset):
        return open_stream(options.eval_dataset, split=split)
    return open_stream(**asdict(take(SourceOptions, options)) | {"split": split})


def check_labels(probe_source: Source, held_out: Source) -> None:
    """Raises UserError unless both splits are labeled with the same classes."""
    if not (probe_source.label_names and held_out.label_names):
        raise UserError("eval_split needs labels: name their column with --label_column, or leave eval_split out")
    label_map(probe_source.label_names, held_out.label_names)


def build_model(options: PretrainOptions) -> VISRegViTForPreTraining:
    """A fresh model, or the one the run starts from; the same on every rank.

    Raises:
        ValueError: a crop that the patch does not divide, or a checkpoint that cannot be read.
    """
    torch.manual_seed(seed_of("initialization", options.seed))
    if options.initialize_from:
        sizes = options.projection_size, options.projector_hidden_size
        start = model_directory(options.initialize_from)
        model = continue_pretraining_model(start, *sizes, options.drop_path_rate, options.projector_act)
        if options.image_size is not None:
            change_native_size(model, options.image_size)
    else:
        model = build_pretraining_model(config_from(options))
    check_crops(model.config.patch_size, options)
    adapt(wrap_backbone(model), take(AdaptOptions, options))
    if options.activation_checkpointing:
        enable_activation_checkpointing(model)
    return model


def build_objective(options: PretrainOptions) -> VISRegObjective:
    """The objective; the loop looks at the loss itself, so it does not look for NaN."""
    return VISRegObjective(**asdict(take(ObjectiveOptions, options)), seed=options.seed, check_finite=False)
