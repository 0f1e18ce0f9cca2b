# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F401
"""The options of a run, and what follows from them before anything starts.

options.py        every option of a run, in one flat frozen dataclass: `PretrainOptions`
recipe.py         recipes, flags and keywords into options; the table of recipes
architectures.py  backbones by name, and the configuration that the options make
schedule.py       batch of a rank, steps, warmup, and the learning rate of a step
defaults.py       what a run without a recipe uses, chosen from the images and the device
estimate.py       operations and memory of a step, counted on the meta device
plan.py, gpus.py  what a recipe needs on given GPUs, and the GPUs that are known
"""

from typing import TYPE_CHECKING

from ..lazy import face


if TYPE_CHECKING:
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


# File -> its public names, imported when they are used: what only reads options needs no torch.
_NAMES = {
    "architectures": (
        "ARCHITECTURES", "architecture_name", "check_crops", "check_shape_options", "config_from", "model_config",
    ),
    "options": ("PretrainOptions", "checked", "free_on_resume", "option_names", "shown_on_card"),
    "recipe": (
        "RECIPES", "add_pretrain_options", "check_names", "from_keywords", "parse", "parse_options", "read_recipe",
        "recipe_table",
    ),
    "schedule": ("LearningRateSchedule", "TrainingSchedule", "divided_batch", "training_schedule"),
}  # fmt: skip
__all__ = sorted(name for names in _NAMES.values() for name in names)
__getattr__, __dir__ = face(__name__, _NAMES)
