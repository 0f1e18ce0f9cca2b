# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The options of a run, and what follows from them before anything starts.

options.py        every option of a run, in one flat frozen dataclass: `PretrainOptions`
recipe.py         recipes, flags and keywords into options; the table of recipes
architectures.py  backbones by name, and the configuration that the options make
schedule.py       batch of a rank, steps, warmup, and the learning rate of a step
defaults.py       what a run without a recipe uses, chosen from the images and the device
estimate.py       operations and memory of a step, counted on the meta device
plan.py, gpus.py  what a recipe needs on given GPUs, and the GPUs that are known
"""

from .architectures import (
    ARCHITECTURES,
    architecture_name,
    check_crops,
    check_shape_options,
    config_from,
    model_config,
)
from .options import PretrainOptions, checked, free_on_resume, option_names, shown_on_card
from .recipe import (
    RECIPES,
    add_pretrain_options,
    check_names,
    from_keywords,
    parse,
    parse_options,
    read_recipe,
    recipe_table,
)
from .schedule import LearningRateSchedule, TrainingSchedule, divided_batch, training_schedule


__all__ = [
    "ARCHITECTURES",
    "RECIPES",
    "LearningRateSchedule",
    "PretrainOptions",
    "TrainingSchedule",
    "add_pretrain_options",
    "architecture_name",
    "check_crops",
    "check_names",
    "check_shape_options",
    "checked",
    "config_from",
    "divided_batch",
    "free_on_resume",
    "from_keywords",
    "model_config",
    "option_names",
    "parse",
    "parse_options",
    "read_recipe",
    "recipe_table",
    "shown_on_card",
    "training_schedule",
]
