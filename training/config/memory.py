# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a run needs at the very least, against the memory that there is: refused before any of it is taken.

A lower bound, in closed form: weights, their gradients and moments, the directions, the crops of one batch. What a
step needs beyond it is estimated by `estimate.py`, for a micro-batch that fits.
"""

from collections.abc import Callable

from modeling_visreg import VISRegViTConfig

from ..errors import UserError
from .options import PretrainOptions


ConfigOf = Callable[[PretrainOptions], VISRegViTConfig | None]

# Options that make a run large, in the order in which one of them is named.
_SIZES = (
    "hidden_size", "num_hidden_layers", "projector_hidden_size", "projection_size", "num_slices", "patch_size",
    "image_size", "global_size", "local_size", "num_global", "num_local", "global_batch_size",
)  # fmt: skip
_SIDES = ("image_size", "global_size", "local_size")


def check_memory(options: PretrainOptions, config_of: ConfigOf, room: int | None, processes: int) -> None:
    """Refuses a run that cannot fit.

    Args:
        options: of the run.
        config_of: the configuration of its model for other options; None for a model of another family.
        room: bytes of the device of a process, or of the machine where it has none; None where nobody knows.
        processes: how many share the batch.

    Raises:
        UserError: it names the option, and the largest value of it that would fit.
    """
    need = least_bytes(options, config_of(options), processes)
    if room is None or need <= room:
        return
    short = (
        f"weights, gradients, moments, directions and crops need {_gib(need)} at the least, and there are {_gib(room)}"
    )
    for name in _SIZES:
        fits = largest_fitting(name, options, config_of, room, processes) if name in options.given else None
        if fits is not None:
            raise UserError(f"{name} {getattr(options, name)}: {short}; {name} {fits} fits")
    given = [name for name in _SIZES if name in options.given]
    smaller = f"smaller values of {', '.join(given)} fit, one alone does not" if given else "choose a smaller one"
    raise UserError(f"{options.initialize_from or options.model}: {short}: {smaller}")


def largest_fitting(name: str, options: PretrainOptions, config_of: ConfigOf, room: int, processes: int) -> int | None:
    """The largest value of an option that needs at most `room` bytes, the others as they are; None if none does."""
    config = config_of(options)
    unit = processes if name == "global_batch_size" else 1
    if config is not None:
        unit = {"hidden_size": config.num_attention_heads, **dict.fromkeys(_SIDES, config.patch_size)}.get(name, unit)

    def fits(units: int) -> bool:
        changed = options.replace(**{name: units * unit})
        return least_bytes(changed, config_of(changed), processes) <= room

    low, high = 0, getattr(options, name) // unit  # `low` fits, or is 0; `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * unit or None


def least_bytes(options: PretrainOptions, config: VISRegViTConfig | None, processes: int) -> int:
    """Bytes that a process cannot do without; of a backbone of another family, only the projector counts."""
    if config is None:
        hidden, dimension = options.projector_hidden_size or 2048, options.projection_size or 1
        count = projector_parameters(1, hidden, dimension)
    else:
        dimension = config.projection_size
        count = parameter_count(config)
    frozen = options.lora_rank is not None or options.freeze_blocks > 0
    each = 4 if frozen else 16  # float32: the weight; its gradient and two moments
    pixels = sum(views * side**2 for views, side in options.resolutions())
    crops = 3 * pixels * max(1, options.global_batch_size // processes)  # uint8
    shared = processes if options.slices == "shared" else 1
    return each * count + 4 * dimension * (options.num_slices // shared) + crops


def parameter_count(config: VISRegViTConfig) -> int:
    """Parameters of a `VISRegViTForPreTraining`."""
    width, hidden = config.hidden_size, config.intermediate_size or 4 * config.hidden_size
    rows, columns = config.grid_size
    embedding = width * (1 + 1 + rows * columns + config.num_channels * config.patch_size**2 + 1)
    attention = 4 * width**2 + width * (4 if config.qkv_bias else 1)
    block = attention + 2 * width * hidden + hidden + width + 4 * width  # the MLP, two norms
    projector = projector_parameters(width, config.projector_hidden_size, config.projection_size)
    return embedding + config.num_hidden_layers * block + 2 * width + projector


def projector_parameters(width: int, hidden: int, dimension: int) -> int:
    """Parameters of a projector: three linear layers, two batch norms."""
    return width * hidden + hidden**2 + hidden * dimension + 6 * hidden + dimension


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
