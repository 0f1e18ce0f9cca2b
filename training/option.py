# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""How an option is declared: once, in the dataclass of the part that uses it, with all that is to be said about it.

    @dataclass(frozen=True)
    class CropOptions:
        num_global: int = option(4, "global views of an image (paper: 4 x 224)", POSITIVE)

The command line, the recipes, the checks of values, the comparison on a resume and the card read it from there.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast


T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """Values that an option takes: `holds` decides, `wanted` says it: "num_global must be above 0, not -1".

    `largest` is far beyond any that makes sense: what only a slip of the pen asks for is refused before anything is
    made of it.
    """

    holds: Callable[[Any], bool]
    wanted: str
    largest: int | None = None

    def up_to(self, largest: int) -> "Range":
        """The same values, none above `largest`."""
        return dataclasses.replace(self, largest=largest)

    def missed(self, value: Any) -> str | None:
        """What a value should be and is not; None for one that is allowed."""
        if not self.holds(value):
            return self.wanted
        beyond = self.largest is not None and any(part > self.largest for part in _parts(value))
        return f"be at most {self.largest}" if beyond else None


POSITIVE = Range(lambda value: value > 0, "be above 0")
NOT_NEGATIVE = Range(lambda value: value >= 0, "be 0 or above")
SEED = NOT_NEGATIVE.up_to(2**63 - 1)
EPOCHS = 1_000_000  # at most
SIDE = 65_536  # pixels at most
SHARE = Range(lambda value: 0 <= value <= 1, "lie in [0, 1]")
SHARES = Range(lambda value: len(value) == 2 and 0 < value[0] <= value[1] <= 1, "be two numbers, 0 < low <= high <= 1")


def option(
    default: Any,
    help: str,
    values: Range | tuple[str, ...] | None = None,
    *,
    free_on_resume: bool = False,
    on_card: bool = True,
    in_recipe: bool = True,
) -> Any:
    """A field of a frozen options dataclass.

    Args:
        default: immutable, ranges as tuples; None for an option that may be left open, with what that means in `help`.
        help: unit, meaning, and the default's source.
        values: the `Range`, or the strings that are allowed.
        free_on_resume: whether a continued run may have another value than before.
        on_card: whether a model card shows it; what says nothing about the model is left out.
        in_recipe: whether a recipe holds it; what says how one command meets a folder is given with that command.
    """
    about = {"help": help, "values": values, "free_on_resume": free_on_resume, "on_card": on_card}
    about["in_recipe"] = in_recipe
    return field(default=default, metadata={"option": about})


def about(spec: dataclasses.Field) -> dict[str, Any]:
    """What `option` declared of a field; empty for a field that is no option."""
    return spec.metadata.get("option", {})


def declared(kind: Any) -> list[dataclasses.Field]:
    """The fields of an options dataclass (or of an instance) that were made by `option`."""
    return [spec for spec in dataclasses.fields(kind) if about(spec)]


def check_options(options: Any) -> None:
    """Raises ValueError that names the option, its value and what is allowed, for the first value out of range."""
    for spec in declared(options):
        value, allowed = getattr(options, spec.name), about(spec)["values"]
        if any(isinstance(part, float) and not math.isfinite(part) for part in _parts(value)):
            raise ValueError(f"{spec.name} must be a finite number, not {value}")
        if value == "":  # of a shell's variable that is not set
            raise ValueError(f"{spec.name} is empty: give a value, or leave it out")
        if value is None or allowed is None:
            continue
        if isinstance(allowed, Range) and (wanted := allowed.missed(value)):
            raise ValueError(f"{spec.name} must {wanted}, not {value}")
        if isinstance(allowed, tuple) and value not in allowed:
            raise ValueError(f"{spec.name} must be one of {', '.join(allowed)}, not {value!r}")


def _parts(value: Any) -> tuple[Any, ...]:
    """The items of a range or a list of values, or the one value there is."""
    return value if isinstance(value, tuple) else (value,)


def take(kind: Callable[..., T], options: Any, **more: Any) -> T:
    """The part `kind` (a dataclass) with those of its fields that `options` has too, and `more`."""
    names = [spec.name for spec in dataclasses.fields(cast(Any, kind)) if spec.init and hasattr(options, spec.name)]
    return kind(**{name: getattr(options, name) for name in names} | more)
