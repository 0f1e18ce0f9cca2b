# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Every option of a run, flat: the groups of the data path, of the objective, and those of the model and the loop.

Names are the same in a recipe, as a flag and as a keyword of `visreg_training.pretrain`. Each field says its unit and
where its default comes from; "paper" is arXiv 2606.02572. The defaults are its ViT-B/16 ImageNet-1K recipe, with the
global batch of its largest run (1024), since the published one is per GPU (16). To add an option, add a field to the
group that uses it; the rest is derived from it.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ..backbones.options import AdaptOptions
from ..data.options import ColorOptions, CropOptions, LoaderOptions, SourceOptions, SubsetOptions
from ..errors import UserError
from ..objective.options import ObjectiveOptions
from ..option import EPOCHS, NOT_NEGATIVE, POSITIVE, SEED, SHARE, SIDE, Range, about, check_options, declared, option
from ..run_folder import Json
from .architectures import ARCHITECTURES, SHAPE_OPTIONS


# Of what watches a run or looks after it, and says nothing about the model: free on a resume, and on no card.
aside = partial(option, free_on_resume=True, on_card=False)

# Those of `modeling_visreg.configuration_visreg.LARGEST`, which cannot be imported without torch.
LARGEST = {
    "hidden_size": 65_536, "num_hidden_layers": 1_024, "num_attention_heads": 4_096, "patch_size": 4_096,
    "projector_hidden_size": 1_048_576, "projection_size": 1_048_576, "image_size": SIDE,
}  # fmt: skip
MOST_STEPS = 10**12 - 1  # a checkpoint's name has at most twelve digits

# Without a default, and always needed by a run: where the images are and where the results go.
NEEDED = ("dataset", "output_dir")


def _size(name: str) -> Range:
    return POSITIVE.up_to(LARGEST[name])


@dataclass(frozen=True)
class ModelOptions:
    """The backbone and its projector."""

    model: str = option(
        "vit_base", f"architecture: {', '.join(ARCHITECTURES)} (paper: models table); with from_scratch any other"
    )
    from_scratch: bool = option(
        False, "random weights in the architecture of model, which may be a folder, a Hub id or timm/NAME then"
    )
    patch_size: int | None = option(None, "pixels of a patch's side; default: the architecture's", _size("patch_size"))
    image_size: int | None = option(
        None,
        "pixels of the native position grid; default: global_size, or initialize_from's, which another resamples",
        _size("image_size"),
    )
    hidden_size: int | None = option(None, "width of the backbone; default: the architecture's", _size("hidden_size"))
    num_hidden_layers: int | None = option(
        None, "number of blocks; default: the architecture's", _size("num_hidden_layers")
    )
    num_attention_heads: int | None = option(
        None, "attention heads a block; default: the architecture's", _size("num_attention_heads")
    )
    drop_path_rate: float | None = option(
        None, "rate of the last block, rising linearly from 0; default: the architecture's", SHARE
    )
    projection_size: int | None = option(
        None, "dimension of the projections; default: the architecture's", _size("projection_size")
    )
    projector_hidden_size: int | None = option(
        None, "width of its two hidden layers; default: 2048 (paper)", _size("projector_hidden_size")
    )
    projector_act: str | None = option(
        None, "activation of its two hidden layers; default: gelu (release: relu for Imagenette)", ("gelu", "relu")
    )
    initialize_from: str | None = option(
        None, "checkpoint directory, Hub id or timm/NAME whose backbone the run starts from: ours or any vision model"
    )
    activation_checkpointing: bool = option(
        False, "recompute activations of each block in backward, to save memory", free_on_resume=True
    )
    compile: str = option(
        "auto",
        "torch.compile the blocks, one graph for all of them, or the whole model; auto: the blocks on CUDA",
        ("auto", "blocks", "model", "no"),
        free_on_resume=True,
    )


@dataclass(frozen=True)
class EvalOptions:
    """The evaluation at the end of a run."""

    eval_dataset: str | None = option(
        None, "labeled data set of the final evaluation; default: dataset", free_on_resume=True
    )
    eval_split: str | None = option(
        None, "held-out split for kNN and linear accuracy; default: no evaluation", free_on_resume=True
    )
    eval_images: int = aside(
        50_000, "training images, at most, that the final kNN and linear probes learn from", POSITIVE
    )


@dataclass(frozen=True)
class RunOptions:
    """Where a run writes, what it draws from, and what it logs."""

    output_dir: str | None = aside(None, "folder of the run")
    seed: int = option(0, "all randomness is a function of (seed, step, rank)", SEED)
    mixed_precision: str = option("auto", "bf16 autocast; auto: where the device computes it", ("auto", "no", "bf16"))
    log_every: int = aside(10, "steps of a logging interval: one line, one synchronization", POSITIVE)
    report_to: str = aside("none", "trackers of Accelerate, comma-separated: tensorboard, wandb, trackio")


@dataclass(frozen=True)
class ScheduleOptions:
    """How long a run is, and its batches."""

    epochs: float = option(100, "passes over the data (paper: 100 or 400)", POSITIVE.up_to(EPOCHS))
    max_steps: int | None = option(
        None, "updates; overrides epochs, and is needed where the data's size is unknown", POSITIVE.up_to(MOST_STEPS)
    )
    warmup_epochs: float = option(5, "linear warmup (released recipe: 5)", NOT_NEGATIVE.up_to(EPOCHS))
    global_batch_size: int = option(
        1024, "images an update, over all ranks (paper, table of recipes: 16 a GPU to 1024)", POSITIVE
    )
    micro_batch_size: int | None = option(
        None,
        "images of a rank whose activations are held at once; exact, see step.py; default: all",
        POSITIVE,
        free_on_resume=True,
    )


@dataclass(frozen=True)
class OptimizerOptions:
    """AdamW and its learning rate."""

    learning_rate: float = option(9e-4, "peak, AdamW (released recipe: 9e-4 for B/16)", POSITIVE)
    learning_rate_rule: str = option(
        "none", "scale it by batch/base_batch_size or its root", ("none", "linear", "sqrt")
    )
    base_batch_size: int = option(1024, "batch that learning_rate is meant for, if a rule scales it", POSITIVE)
    initial_learning_rate_ratio: float | None = option(
        None,
        "start of the warmup, share of the peak (released recipe: 1e-3); default: that of one of its steps",
        SHARE,
    )
    final_learning_rate_ratio: float = option(
        1e-3, "end of the cosine, share of the peak (released recipe: 1e-3)", NOT_NEGATIVE
    )
    weight_decay: float = option(0.05, "AdamW, matrices only (released recipe: 0.05)", NOT_NEGATIVE)
    clip_norm: float = option(1.0, "largest gradient norm (released recipe: 1.0)", POSITIVE)


@dataclass(frozen=True)
class CheckpointOptions:
    """What is kept to go on from, and how a run meets an earlier one in its folder."""

    save_every: int = aside(1000, "steps between checkpoints", POSITIVE)
    save_minutes: float = aside(15, "minutes after which one is due as well, where steps are slow", POSITIVE)
    keep_last: int = aside(2, "newest checkpoints kept", POSITIVE)
    keep_best: str = aside("loss", "also keep the best by loss (paper, figure 7) or probe", ("none", "loss", "probe"))
    resume: str = aside(
        "no", "continue from the newest checkpoint of output_dir, if any", ("no", "auto"), in_recipe=False
    )
    overwrite: bool = aside(False, "delete the run that output_dir holds, and start anew", in_recipe=False)


@dataclass(frozen=True)
class GuardOptions:
    """What stops a run."""

    on_nonfinite: str = option(
        "stop", "loss or gradient not finite: stop, or leave the update out", ("stop", "skip"), free_on_resume=True
    )
    on_collapse: str = aside("warn", "embedding collapsed for collapse_intervals", ("warn", "stop"))
    collapse_rank: float = aside(2.0, "effective rank of the projections under which they count as collapsed")
    collapse_sigma: float = aside(
        1e-3, "smallest standard deviation under which they count as collapsed", NOT_NEGATIVE
    )
    collapse_intervals: int = aside(5, "logging intervals in a row that make a collapse", POSITIVE)


@dataclass(frozen=True)
class ProbeOptions:
    """What is measured beside a run; changes nothing in it."""

    online_probe: bool = aside(True, "linear and kNN probe beside the run, where there are labels; changes nothing")
    probe_every: int | None = aside(
        None, "steps between their measurements on eval_split; default: save_every", POSITIVE
    )
    probe_images: int = aside(2048, "images of eval_split, at most, that they are measured on", POSITIVE)


@dataclass(frozen=True)
class HubOptions:
    """The push of a run to the Hub."""

    push_to_hub: bool = aside(False, "push the finished run to repo_id; the Hub being away does not end a run")
    repo_id: str | None = aside(None, "organization/name on the Hub")
    push_every: int = aside(0, "also push every n-th checkpoint, in the background; 0: none", NOT_NEGATIVE)
    private: bool = aside(False, "make the repository private, if the push makes it")


# Of dataclasses that are inherited, the last one's fields come first: recipe.yaml and --help begin with the model.
@dataclass(frozen=True)
class PretrainOptions(
    HubOptions,
    ProbeOptions,
    GuardOptions,
    CheckpointOptions,
    OptimizerOptions,
    ScheduleOptions,
    RunOptions,
    ObjectiveOptions,
    LoaderOptions,
    ColorOptions,
    CropOptions,
    EvalOptions,
    SubsetOptions,
    SourceOptions,
    AdaptOptions,
    ModelOptions,
):
    """The options of one run.

    Attributes:
        given: names of those that a recipe, a flag or a keyword set, and "config" if there was a recipe. No option.

    Raises:
        ValueError: a value is out of its range.
    """

    given: frozenset[str] = field(default=frozenset(), compare=False, kw_only=True)

    def __post_init__(self) -> None:
        check_options(self)
        if self.model not in ARCHITECTURES and not self.from_scratch:
            raise ValueError(
                f"model must be one of {', '.join(ARCHITECTURES)}, not {self.model!r}: --initialize_from takes a "
                "folder or an id with its weights, and --from_scratch a --model of that kind without"
            )

    def as_recipe(self) -> Json:
        """Flat {option: value}, ranges as lists: `visreg pretrain --config` reads it back from YAML.

        What a checkpoint to start from brings is left out, as it has to be.
        """
        brought = (*SHAPE_OPTIONS, "from_scratch") if self.initialize_from else ()
        left_out = {*outside_recipes(type(self)), *brought}
        values = {name: getattr(self, name) for name in option_names(self) if name not in left_out}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def replace(self, **changes: Any) -> "PretrainOptions":
        """The same options with other values; `given` stays."""
        return dataclasses.replace(self, **changes)

    def resolutions(self) -> list[tuple[int, int]]:
        """(views, pixels of a side) of each resolution, global first."""
        local = [(self.num_local, self.local_size)] if self.num_local else []
        return [(self.num_global, self.global_size), *local]

    def backbone_size(self) -> str:
        """The architecture's name, or depth x width where they are not its own."""
        if self.model not in ARCHITECTURES:
            return self.model
        width, depth, _heads = ARCHITECTURES[self.model]["size"]
        chosen = (self.hidden_size or width, self.num_hidden_layers or depth)
        return self.model if chosen == (width, depth) else f"{chosen[1]} x {chosen[0]}"


def option_names(kind: Any = PretrainOptions) -> list[str]:
    """Names of all options, in the order of recipe.yaml."""
    return [spec.name for spec in declared(kind)]


def outside_recipes(kind: Any = PretrainOptions) -> Json:
    """Options that say how one command meets a folder, with their defaults; a recipe that held them would meet every
    folder so.
    """
    return {spec.name: spec.default for spec in declared(kind) if not about(spec)["in_recipe"]}


def free_on_resume(kind: Any = PretrainOptions) -> frozenset[str]:
    """Options that may change between a run and its continuation; every other one would break it."""
    return frozenset(spec.name for spec in declared(kind) if about(spec)["free_on_resume"])


def shown_on_card(kind: Any = PretrainOptions) -> frozenset[str]:
    """Options that say how the model came about, not where a run wrote, what it watched or how it was looked after."""
    return frozenset(spec.name for spec in declared(kind) if about(spec)["on_card"])


def checked(options: PretrainOptions, needed: Iterable[str] = NEEDED) -> PretrainOptions:
    """The same options, if they go together and none that is `needed` is missing.

    Raises:
        UserError: otherwise, with the option and what would be right.
    """
    if options.push_to_hub and not options.repo_id:
        raise UserError("push_to_hub needs --repo_id organization/name")
    if options.eval_dataset is not None and options.eval_split is None:
        raise UserError("eval_dataset needs --eval_split, the split of it that is held out; or leave it out")
    if options.resume == "auto" and options.overwrite:
        raise UserError("--resume auto continues a run and --overwrite deletes it: choose one")
    if options.repo_id:
        try:
            validate_repo_id(options.repo_id)
        except HFValidationError as error:
            raise UserError(f"repo_id: {error}") from error
    for spec in declared(AdaptOptions):
        if getattr(options, spec.name) != spec.default and not options.initialize_from:
            raise UserError(f"{spec.name} is for a run that starts from weights: give --initialize_from")
    for name in needed:
        if not getattr(options, name):
            raise UserError(f"--{name} is missing: it has no default")
    return options
