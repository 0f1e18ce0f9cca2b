# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Every option of a run: dataclasses read from a recipe (YAML) first and from flags second.

Names are flat and the same in a recipe, as a flag and as a keyword of `visreg_training.pretrain`. Each field says its
unit and where its default comes from; "paper" is arXiv 2606.02572. The defaults are its ViT-B/16 ImageNet-1K recipe,
with the global batch of its largest run (1024), since the published one is given a GPU (16).
`none` takes back what a recipe sets, where the option may be left open (`--eval_split none`).
An unknown key or a value out of range stops before anything starts, in one line.
"""

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import HfArgumentParser

from ..errors import UserError
from .architectures import ARCHITECTURES


RECIPES = Path(__file__).parent.parent / "recipes"


def option(default: Any, help: str, choices: tuple | None = None) -> Any:
    """A dataclass field with its help text and, if the values are few, the allowed ones."""
    metadata = {"help": help} | ({"choices": list(choices)} if choices else {})
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class ModelOptions:
    """The backbone and its projector."""

    model: str = option("vit_base", "architecture by name (paper: models table)", tuple(ARCHITECTURES))
    patch_size: int | None = option(None, "pixels of a patch's side; default: the architecture's")
    image_size: int | None = option(None, "pixels of the native position grid; default: global_size")
    hidden_size: int | None = option(None, "width of the backbone; default: the architecture's")
    num_hidden_layers: int | None = option(None, "number of blocks; default: the architecture's")
    num_attention_heads: int | None = option(None, "attention heads a block; default: the architecture's")
    drop_path_rate: float | None = option(
        None, "rate of the last block, rising linearly from 0; default: architecture's"
    )
    projection_size: int | None = option(None, "dimension of the projections; default: the architecture's")
    projector_hidden_size: int | None = option(None, "width of its two hidden layers; default: 2048 (paper)")
    initialize_from: str | None = option(None, "checkpoint directory or Hub id whose backbone the run starts from")
    activation_checkpointing: bool = option(False, "recompute activations of each block in backward, to save memory")
    compile: bool = option(False, "torch.compile the step")

    def in_words(self) -> str:
        """The architecture's name, or depth x width where they are not its own."""
        width, depth, _heads = ARCHITECTURES[self.model]["size"]
        own = (self.hidden_size or width, self.num_hidden_layers or depth)
        return self.model if own == (width, depth) else f"{own[1]} x {own[0]}"


@dataclass
class DataOptions:
    """Where images come from, how they are cropped (in the workers) and coloured (on the device)."""

    dataset: str | None = option(
        None, "Hub id, image folder, parquet, arrow or tar glob, save_to_disk folder, or 'digits'"
    )
    dataset_config: str | None = option(None, "configuration name of a Hub data set")
    split: str = option("train", "split to train on")
    streaming: bool | None = option(None, "stream instead of downloading; default: true for a Hub id")
    revision: str | None = option(None, "branch, tag or commit of a Hub data set; the commit is recorded")
    image_column: str | None = option(None, "column of the images; default: found by its type")
    label_column: str | None = option(None, "column of the labels, if any; default: found by its type")
    fraction: float | None = option(None, "share of the data set to keep, (0, 1]")
    images_per_class: int | None = option(None, "images of each class to keep")
    imbalance_factor: float | None = option(None, "largest over smallest class of an exponential long tail, >= 1")
    file_list: str | None = option(None, "text file with the names of the images to keep, one a line")
    eval_dataset: str | None = option(None, "labelled data set of the final evaluation; default: dataset")
    eval_split: str | None = option(None, "held-out split for kNN and linear accuracy; default: no evaluation")
    num_global: int = option(4, "global views of an image (paper: 4 x 224)")
    num_local: int = option(6, "local views of an image (paper: 6 x 96)")
    global_size: int = option(224, "pixels of a global view's side")
    local_size: int = option(96, "pixels of a local view's side")
    global_scale: list[float] = option([0.3, 1.0], "area of a global crop, share of the image (paper: 0.3-1)")
    local_scale: list[float] = option([0.05, 0.3], "area of a local crop, share of the image (paper: 0.05-0.3)")
    flip_probability: float = option(0.5, "horizontal flip (released recipe: 0.5)")
    rotation: float = option(0.0, "largest rotation of a crop, degrees (released recipe: none)")
    jitter_probability: float = option(0.8, "colour jitter (released recipe: 0.8)")
    brightness: float = option(0.4, "strength of the jitter (released recipe: 0.4; Imagenette 0.8)")
    contrast: float = option(0.4, "strength of the jitter (released recipe: 0.4; Imagenette 0.8)")
    saturation: float = option(0.2, "strength of the jitter (released recipe: 0.2; Imagenette 0.8)")
    hue: float = option(0.1, "strength of the jitter, share of the circle (released recipe: 0.1; Imagenette 0.2)")
    grayscale_probability: float = option(0.2, "grayscale (released recipe: 0.2)")
    blur_probability: float = option(0.5, "Gaussian blur, kernel 9, sigma 0.1-2 (released recipe: 0.5)")
    solarize_probability: float = option(0.2, "solarize at half range (released recipe: 0.2)")
    augment_backend: str = option(
        "device", "colour in batches on the device, or the torchvision reference in workers", ("device", "torchvision")
    )
    num_workers: int = option(8, "processes that decode and crop, for each rank")
    max_bad_share: float = option(0.01, "share of unreadable images at which the run stops")

    def resolutions(self) -> list[tuple[int, int]]:
        """(views, pixels of a side) of each resolution, global first."""
        return [(self.num_global, self.global_size)] + [(self.num_local, self.local_size)] * bool(self.num_local)


@dataclass
class ObjectiveOptions:
    """The objective: lambda * (scale + shape + center) + (1 - lambda) * invariance (paper: equations 1 to 8)."""

    regularizer: str = option(
        "visreg", "what keeps the embedding spread", ("visreg", "sigreg", "swd", "vicreg", "barlow")
    )
    regularization_weight: float = option(0.9, "lambda, [0, 1] (paper: 0.9 for B/16; 0.6 for small data sets)")
    scale_weight: float = option(1.0, "weight of the scale term (paper: 1)")
    shape_weight: float = option(1.0, "weight of the shape term (paper: 1; up to 4 for long-tailed or low-rank data)")
    center_weight: float = option(1.0, "weight of the center term (paper: 1)")
    num_slices: int = option(4096, "K, random directions a step (paper: 4096)")
    slices: str = option(
        "shared", "K in total, each rank a part, or K on each rank as published", ("shared", "per_rank")
    )
    statistics: str = option("global", "over the whole batch or over each rank's", ("global", "local"))
    eps: float = option(1e-6, "added to sigma (released code: 1e-6)")


@dataclass
class RunOptions:
    """The loop: length, optimizer, what is written and when."""

    output_dir: str | None = option(None, "folder of the run")
    seed: int = option(0, "all randomness is a function of (seed, step, rank)")
    epochs: float = option(100, "passes over the data (paper: 100 or 400)")
    max_steps: int | None = option(None, "updates; overrides epochs, and is needed where the data's size is unknown")
    global_batch_size: int = option(
        1024, "images an update, over all ranks (paper, table of recipes: 16 a GPU to 1024)"
    )
    micro_batch_size: int | None = option(
        None, "images of a rank whose activations are held at once; exact, see step.py"
    )
    learning_rate: float = option(9e-4, "peak, AdamW (released recipe: 9e-4 for B/16)")
    learning_rate_rule: str = option(
        "none", "scale it by batch/base_batch_size or its root", ("none", "linear", "sqrt")
    )
    base_batch_size: int = option(1024, "batch that learning_rate is meant for, if a rule scales it")
    weight_decay: float = option(0.05, "AdamW, matrices only (released recipe: 0.05)")
    warmup_epochs: float = option(5, "linear warmup (released recipe: 5)")
    final_learning_rate_ratio: float = option(1e-3, "end of the cosine (released recipe: lr / 1000)")
    clip_norm: float = option(1.0, "largest gradient norm (released recipe: 1.0)")
    mixed_precision: str = option("auto", "bf16 autocast; auto: where the device computes it", ("auto", "no", "bf16"))
    log_every: int = option(10, "steps of a logging interval: one line, one synchronisation")
    save_every: int = option(1000, "steps between checkpoints")
    keep_last: int = option(2, "newest checkpoints kept")
    keep_best: str = option("loss", "also keep the best by loss (paper, figure 7) or probe", ("none", "loss", "probe"))
    resume: str = option("no", "continue from the newest checkpoint of output_dir, if any", ("no", "auto"))
    on_nonfinite: str = option("stop", "loss or gradient not finite: stop, or leave the update out", ("stop", "skip"))
    on_collapse: str = option("warn", "embedding collapsed for collapse_intervals", ("warn", "stop"))
    collapse_rank: float = option(2.0, "effective rank of the projections under which they count as collapsed")
    collapse_sigma: float = option(1e-3, "smallest standard deviation under which they count as collapsed")
    collapse_intervals: int = option(5, "logging intervals in a row that make a collapse")
    overwrite: bool = option(False, "delete the run that output_dir holds, and start anew")
    eval_images: int = option(50_000, "training images, at most, that the final kNN and linear probes learn from")
    online_probe: bool = option(True, "linear and kNN probe beside the run, where there are labels; changes nothing")
    probe_every: int | None = option(None, "steps between their measurements on eval_split; default: save_every")
    probe_images: int = option(2048, "images of eval_split, at most, that they are measured on")
    push_to_hub: bool = option(False, "push the finished run to repo_id; the Hub being away does not end a run")
    repo_id: str | None = option(None, "organisation/name on the Hub")
    push_every: int = option(0, "also push every n-th checkpoint, in the background; 0: none")
    private: bool = option(False, "make the repository private, if the push makes it")
    report_to: str = option("none", "trackers of Accelerate, comma-separated: tensorboard, wandb, trackio")


GROUPS = (ModelOptions, DataOptions, ObjectiveOptions, RunOptions)


@dataclass
class Arguments:
    """The options of one run, in their four groups; `given` names those that a recipe or a flag set."""

    model: ModelOptions
    data: DataOptions
    objective: ObjectiveOptions
    run: RunOptions
    given: frozenset[str] = field(default=frozenset(), compare=False)

    def fill(self, option: str, value: Any) -> None:
        """Set an option that was not given."""
        group = next(group for group in self.groups() if hasattr(group, option))
        setattr(group, option, value)

    def as_recipe(self) -> dict[str, Any]:
        """Flat {option: value}: `visreg pretrain --config` reads it back from YAML."""
        return {name: value for group in self.groups() for name, value in dataclasses.asdict(group).items()}

    def groups(self) -> tuple:
        return (self.model, self.data, self.objective, self.run)


class OneLineParser(HfArgumentParser):
    """HfArgumentParser whose errors are one line (a UserError) and which accepts no abbreviations."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def parser(program: str = "visreg pretrain") -> OneLineParser:
    made = OneLineParser(GROUPS, prog=program, allow_abbrev=False, description=__doc__.split("\n")[0])
    made.add_argument("--config", help="recipe: a YAML file, or the name of one of ours")
    made.add_argument("--list_recipes", action="store_true", help="print the recipes as a table and end")
    return made


def option_names() -> list[str]:
    return [spec.name for group in GROUPS for spec in dataclasses.fields(group)]


def recipe_path(name: str) -> Path:
    """A file by path, or one of our recipes by name."""
    ours = RECIPES / f"{name}.yaml"
    path = Path(name)
    if path.is_file() or ours.is_file():
        return path if path.is_file() else ours
    known = ", ".join(sorted(recipe.stem for recipe in RECIPES.glob("*.yaml")))
    raise UserError(f"no recipe at '{name}': give a YAML file or one of {known}")


def read_recipe(name: str) -> dict[str, Any]:
    """The keys of a recipe, checked."""
    path = recipe_path(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold 'option: value' lines")
    check_names(content, str(path))
    return content


def check_names(given: Iterable[str], where: str) -> None:
    """Raises UserError for a key that is no option, with the nearest that is."""
    names = option_names()
    for key in given:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "`visreg pretrain --help` lists the options"
            raise UserError(f"unknown option '{key}' in {where}: {hint}")


def as_flags(recipe: dict[str, Any]) -> list[str]:
    """A recipe as the flags that say the same, so that both are read by one parser (YAML takes 2e-3 for a string)."""
    flags = []
    for key, value in recipe.items():
        if value is not None or key in unsettable():
            flags.append(f"--{key}")
            flags += [as_word(item) for item in (value if isinstance(value, list) else [value])]
    return flags


def unsettable() -> set[str]:
    """Options that may be left open, so that `none` (None, null) takes back what a recipe says."""
    specs = [spec for group in GROUPS for spec in dataclasses.fields(group)]
    return {spec.name for spec in specs if spec.default is None} - {"dataset", "output_dir"}


def without_unset(flags: list[str]) -> list[str]:
    """Flags without those of options that a later `--option none` takes back."""
    said: list[list[str]] = []
    for word in flags:
        if word.startswith("--") or not said:
            said.append(word.split("=", 1) if word.startswith("--") else [word])
        else:
            said[-1].append(word)
    kept: list[list[str]] = []
    for words in said:
        if words[1:] == ["none"] and words[0][2:] in unsettable():
            kept = [others for others in kept if others[0] != words[0]]
        else:
            kept.append(words)
    return [word for words in kept for word in words]


def as_word(value: Any) -> str:
    """YAML reads a bare `no` as false; HfArgumentParser reads `no` as false, and our choices are called `no`."""
    words = {True: "yes", False: "no", None: "none"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def parse(
    argv: list[str], program: str = "visreg pretrain", needed: tuple[str, ...] = ("dataset", "output_dir")
) -> Arguments:
    """Recipe first, then flags; `needed` names what may not be left out.

    Raises:
        UserError: unknown option, wrong type, value out of range.
    """
    reader = parser(program)
    config = named_config(argv)
    recipe = as_flags(read_recipe(config)) if config else []
    flags = without_unset(recipe + list(argv))
    *groups, _namespace, unknown = reader.parse_args_into_dataclasses(
        flags, look_for_args_file=False, return_remaining_strings=True
    )
    for flag in unknown:
        if flag.startswith("--"):
            check_names([flag[2:].partition("=")[0]], "the command")
        raise UserError(f"'{flag}' belongs to no option")
    given = {flag[2:].partition("=")[0].removeprefix("no_") for flag in flags if flag.startswith("--")}
    return checked(Arguments(*groups, given=frozenset(given)), needed)


def recipe_table() -> str:
    """Our recipes, one line each."""
    lines = [
        f"{'recipe':<22} {'model':<10} {'data':<24} {'views':<16} {'batch':>5} {'epochs':>6} {'lambda':>6} {'lr':>8}"
    ]
    for path in sorted(RECIPES.glob("*.yaml")):
        flags = as_flags(read_recipe(str(path)))
        own = parse(flags, needed=())
        data, run = own.data, own.run
        views = f"{data.num_global} x {data.global_size}" + (
            f" + {data.num_local} x {data.local_size}" * bool(data.num_local)
        )
        lines.append(
            f"{path.stem:<22} {own.model.in_words():<10} {data.dataset or 'your own':<24} {views:<16} "
            f"{run.global_batch_size:>5} {run.epochs:>6g} {own.objective.regularization_weight:>6g} "
            f"{run.learning_rate:>8.1e}"
        )
    return "\n".join(lines)


def named_config(argv: list[str]) -> str | None:
    for position, flag in enumerate(argv):
        if flag == "--config":
            if position + 1 == len(argv):
                raise UserError("--config needs a YAML file or the name of a recipe")
            return argv[position + 1]
        if flag.startswith("--config="):
            return flag.partition("=")[2]
    return None


def validate_repo(name: str) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f"repo_id: {error}") from error


POSITIVE = (
    "num_global", "global_size", "local_size", "num_slices", "epochs", "max_steps", "global_batch_size",
    "micro_batch_size", "learning_rate", "clip_norm", "log_every", "save_every", "keep_last", "patch_size",
    "image_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "projection_size",
    "projector_hidden_size", "images_per_class", "base_batch_size", "collapse_intervals", "eval_images",
    "probe_every", "probe_images",
)  # fmt: skip
NOT_NEGATIVE = (
    "num_local", "num_workers", "push_every", "weight_decay", "warmup_epochs", "seed", "scale_weight", "shape_weight",
    "center_weight", "eps", "collapse_sigma", "rotation", "brightness", "contrast", "saturation",
    "final_learning_rate_ratio",
)  # fmt: skip
SHARES = (
    "flip_probability", "jitter_probability", "grayscale_probability", "blur_probability", "solarize_probability",
    "max_bad_share", "regularization_weight", "drop_path_rate", "fraction",
)  # fmt: skip
RANGES = ("global_scale", "local_scale")


def checked(arguments: Arguments, needed: tuple[str, ...]) -> Arguments:
    """The same arguments, or a UserError that names the option, its value and the values that are allowed."""
    values = arguments.as_recipe()
    rules = (
        (POSITIVE, lambda value: value > 0, "be above 0"),
        (NOT_NEGATIVE, lambda value: value >= 0, "be 0 or above"),
        (SHARES, lambda value: 0 <= value <= 1, "lie in [0, 1]"),
        (
            RANGES,
            lambda value: len(value) == 2 and 0 < value[0] <= value[1] <= 1,
            "be two numbers, 0 < low <= high <= 1",
        ),
        (("hue",), lambda value: 0 <= value <= 0.5, "lie in [0, 0.5]"),
        (("imbalance_factor",), lambda value: value >= 1, "be 1 or above"),
    )
    for names, holds, wanted in rules:
        for name in names:
            if values[name] is not None and not holds(values[name]):
                raise UserError(f"{name} must {wanted}, not {values[name]}")
    if values["push_to_hub"] and not values["repo_id"]:
        raise UserError("push_to_hub needs --repo_id organisation/name")
    if values["resume"] == "auto" and values["overwrite"]:
        raise UserError("--resume auto continues a run and --overwrite deletes it: choose one")
    if values["repo_id"]:
        validate_repo(values["repo_id"])
    for name in needed:
        if not values[name]:
            raise UserError(f"--{name} is missing: it has no default")
    return arguments
