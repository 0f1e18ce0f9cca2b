# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The protocols: every module of this folder is one, under its own name, and holds a `PROTOCOL`.

A protocol is a title, an options dataclass and a function from `Inputs` and options to an `Outcome`. That is all the
command line, the suites and the result files need: another protocol is another file here.
"""

import ast
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...option import declared
from ...run_folder import Json, read_object
from ..options import FeatureOptions


if TYPE_CHECKING:
    from ..inputs import Inputs
    from ..outcome import Outcome


RECIPES = Path(__file__).parents[2] / "recipes"


@dataclass(frozen=True)
class Protocol:
    """What a module of this folder says about itself.

    Attributes:
        title: one line.
        options: a frozen dataclass whose fields are made by `option`; the class tells protocols apart.
        evaluate: called on every process with (inputs, options); the `Outcome` counts on the main process.
        takes_features: whether it takes features of whole images, so that `FeatureOptions` say which.
        layers: blocks from the end that it takes them of where nothing is said.
        in_suites: whether the data sets of the suites have what it needs.
        writes: whether it writes more than its result, so that it needs a folder.
        presets: a published protocol each: the values of its options, and of `FeatureOptions`.
    """

    title: str
    options: type
    evaluate: "Callable[[Inputs, Any], Outcome | None]"
    takes_features: bool = True
    layers: int = FeatureOptions.layers
    in_suites: bool = True
    writes: bool = False
    presets: dict[str, Json] = field(default_factory=dict)


def protocol_names() -> list[str]:
    """The names of all protocols."""
    return [module.name for module in pkgutil.iter_modules(__path__)]


def protocol_titles() -> dict[str, str]:
    """Title of every protocol by name, read off its file: to import all of them takes seconds."""
    titles = {}
    for finder, name, _is_package in pkgutil.iter_modules(__path__):
        tree = ast.parse(Path(finder.path, f"{name}.py").read_text(encoding="utf-8"))
        assigned = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
        made = assigned["PROTOCOL"]
        titles[name] = ast.literal_eval(made.args[0]) if isinstance(made, ast.Call) else name
    return titles


def get_protocol(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in protocol_names():
        raise ValueError(f"there is no protocol '{name}'; there are {', '.join(protocol_names())}")
    return importlib.import_module(f".{name}", __name__).PROTOCOL


def name_of(options: Any) -> str:
    """The name of the protocol that options belong to."""
    return type(options).__module__.rpartition(".")[2]


def preset_options(name: str, preset: str) -> tuple[Any, FeatureOptions]:
    """The options of a protocol, and of features, as a published protocol has them: `preset_options("linear",
    "released")`.

    Raises:
        ValueError: there is none of that name.
    """
    protocol = get_protocol(name)
    if preset not in protocol.presets:
        raise ValueError(f"protocol: {name} knows {', '.join(protocol.presets) or 'no other'}, not {preset!r}")
    values, own = protocol.presets[preset], {spec.name for spec in declared(protocol.options)}
    taken = {spec.name for spec in declared(FeatureOptions)} - own
    features = {"layers": protocol.layers} | {key: value for key, value in values.items() if key in taken}
    return protocol.options(**{key: value for key, value in values.items() if key in own}), FeatureOptions(**features)


def preset_of(options: Any, features: FeatureOptions) -> str | None:
    """The published protocol that all options agree with; None for none."""
    given = asdict(features) | asdict(options)
    for preset, values in get_protocol(name_of(options)).presets.items():
        if all(given[name] == value for name, value in values.items()):
            return preset
    return None


def on_features(measure: "Callable[..., Outcome]") -> "Callable[[Inputs, Any], Outcome | None]":
    """`evaluate` of a protocol that is a function of (task, options, device) on features in memory."""

    def evaluate(inputs: "Inputs", options: Any) -> "Outcome | None":
        from ..inputs import on_main_process

        task = inputs.task()
        return on_main_process(lambda: measure(task, options, inputs.device))

    return evaluate


def read_recipe(name: str, recipe: str) -> Json:
    """Options of a protocol from a YAML file, or from one of ours by its name (recipes/PROTOCOL/NAME.yaml).

    Raises:
        ValueError: the recipe is missing or has an unknown key.
    """
    ours = RECIPES / name / f"{recipe}.yaml"
    path = ours if ours.is_file() else Path(recipe)
    if not path.is_file():
        raise ValueError(f"config: there is no recipe {recipe!r}")
    values, known = read_object(path), [spec.name for spec in declared(get_protocol(name).options)]
    if unknown := set(values) - set(known):
        raise ValueError(
            f"config: {path.name} has unknown keys {sorted(map(str, unknown))}; known are {', '.join(known)}"
        )
    return values
