# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg evaluate PROTOCOL --model M --dataset D`, `visreg evaluate suite`, `visreg evaluate compare`."""

import logging
import sys
from argparse import Namespace
from pathlib import Path

from ..backbones.options import BackboneOptions
from ..errors import RunStopped, UserError, setting_up
from ..evaluation.options import CacheOptions, FeatureOptions, ReadOptions, TaskOptions
from ..evaluation.protocols import Protocol, get_protocol, protocol_names, protocol_titles, read_recipe
from ..evaluation.suite_datasets import ENTRIES, SUITES
from ..option import declared
from ..parser import OneLineParser, set_values
from ..run_folder import check_writable, write_text
from .flags import flat_parser, parse, part


USAGE = """usage: visreg evaluate PROTOCOL --model MODEL --dataset DATASET [options]

{protocols}
  suite       every data set of a suite: in_domain, ood, or a list of data sets
  compare     result files side by side, beside published numbers

`visreg evaluate PROTOCOL --help` lists the options. Several processes: accelerate launch, or torchrun."""


def main(argv: list[str]) -> None:
    """Raises UserError for a mistake, RunStopped where data sets of a suite could not be reached."""
    if not argv or argv[0] in ("-h", "--help"):
        titles = "\n".join(f"  {name:<11} {title}" for name, title in protocol_titles().items())
        print(USAGE.format(protocols=titles))
        return
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    name, rest = argv[0], argv[1:]
    if name in protocol_names():
        evaluate_one(name, rest)
    elif name in ("suite", "compare"):
        {"suite": evaluate_suite, "compare": show_results}[name](rest)
    else:
        raise UserError(
            f"there is no protocol '{name}'; there are {', '.join((*protocol_names(), 'suite', 'compare'))}"
        )


def evaluate_one(name: str, argv: list[str]) -> None:
    """One protocol on one data set."""
    protocol = get_protocol(name)
    needed = ["model", "dataset", *(["output"] if protocol.writes else [])]
    parser = flat_parser(
        f"evaluate {name}", protocol.title, *kinds_of(protocol), TaskOptions, BackboneOptions, needed=needed
    )
    parser.add_argument("--output", type=Path, help="a .json file, or a folder (a run's evaluation/)")
    if protocol.presets:
        parser.add_argument("--protocol", choices=tuple(protocol.presets), help="a published one; flags override it")
    given = parse_recipe(parser, name, argv, needed)  # before what takes seconds to import: it may be --help

    from visreg_hub_cards import write_derived_card

    from ..backbones import open_backbone
    from ..evaluation.reports.compare import summary
    from ..evaluation.reports.results import write_result
    from ..evaluation.run import evaluate

    with setting_up():
        if given.output is not None:
            check_writable(given.output)
        options, cache = part(protocol.options, given), part(CacheOptions, given)
        features = features_of(protocol, given) if protocol.takes_features else None
        backbone = open_backbone(given.model, part(BackboneOptions, given).trust_remote_code)
        masks = {name: getattr(options, name) for name in ("mask_column", "mask_folder") if hasattr(options, name)}
        sources = part(TaskOptions, given).open(given.model, **masks)
        folder = given.output if protocol.writes else None
        result = evaluate(backbone, sources, options, features, cache.cache, cache.batch_size, folder)
    if result is not None:
        if folder is not None and (folder / "model" / "config.json").is_file():
            write_derived_card(folder / "model", start=given.model)
        print(summary(result), end="", flush=True)  # first: a disk that is full now loses no number
        if given.output is not None:
            with setting_up():
                print(f"written to {write_result(result, given.output)}", file=sys.stderr)


def evaluate_suite(argv: list[str]) -> None:
    """One protocol on every data set of a suite."""
    from ..backbones import open_backbone
    from ..distributed import process_state
    from ..evaluation.reports.compare import compare
    from ..evaluation.suite import run_suite, suite_protocols

    first = OneLineParser("evaluate suite", "", add_help=False)
    choices = suite_protocols() + [f"{name}:{key}" for name in suite_protocols() for key in get_protocol(name).presets]
    first.add_argument("--protocol", choices=choices, default="linear")
    name = first.parse_known_args(argv)[0].protocol.partition(":")[0]
    protocol = get_protocol(name)
    title = f"{name} on every data set of a suite; goes on where it was cut off"
    parser = flat_parser("evaluate suite", title, *kinds_of(protocol), ReadOptions, BackboneOptions, needed=("model",))
    parser.add_argument("--protocol", choices=choices, help="its options are those below (default: linear)")
    known = f"{', '.join(SUITES)}, or some of {', '.join(ENTRIES)} with commas"
    parser.add_argument("--suite", default="in_domain", help=f"{known} (default: in_domain)")
    parser.add_argument("--source", action="append", default=[], metavar="KEY=DATASET", help="local folder or Hub id")
    parser.add_argument("--output", type=Path, help="folder of the result files")
    given = parse_recipe(parser, name, argv, ("model", "output"))
    with setting_up():
        check_writable(given.output)
        sources = dict(split_source(text) for text in given.source)
        options, cache = part(protocol.options, given), part(CacheOptions, given)
        features = features_of(protocol, given)
        backbone = open_backbone(given.model, part(BackboneOptions, given).trust_remote_code)
        arguments = (given.suite, options, given.output, features, cache.cache, sources, cache.batch_size, say)
        results, unreached = run_suite(backbone, *arguments, reading=part(ReadOptions, given))
    if not process_state().is_main_process:
        return
    if results:
        table = compare(results)
        print(table, flush=True)
        with setting_up():
            write_text(given.output / "table.md", table)
    if unreached:
        raise RunStopped(f"{len(unreached)} data sets were not reached, as said above: {', '.join(unreached)}")


def show_results(argv: list[str]) -> None:
    """Result files side by side."""
    from ..evaluation.reports.compare import REFERENCES, compare
    from ..evaluation.reports.results import read_result

    parser = OneLineParser("evaluate compare", "result files side by side, beside published numbers")
    parser.add_argument("files", nargs="+", type=Path, help="result files")
    parser.add_argument(
        "--references", choices=REFERENCES, default="matching", help="published rows (default: matching)"
    )
    parser.add_argument("--output", type=Path, help="markdown file")
    given = parser.parse_args(argv)
    with setting_up():
        table = compare([read_result(path) for path in given.files], given.references)
        if given.output:
            write_text(given.output, table)
    print(table, end="")


def features_of(protocol: Protocol, given: Namespace) -> FeatureOptions:
    """What is taken of the model: the number of blocks is the protocol's where none is given."""
    return part(FeatureOptions, Namespace(**{"layers": protocol.layers} | vars(given)))


def kinds_of(protocol: Protocol) -> list[type]:
    """The options of a protocol, and of features where these are taken."""
    return [protocol.options, *([CacheOptions, FeatureOptions] if protocol.takes_features else [])]


def parse_recipe(parser: OneLineParser, name: str, argv: list[str], needed: tuple[str, ...] | list[str]) -> Namespace:
    """What a published protocol, a recipe and flags say; the later override."""
    parser.add_argument("--config", help=f"recipe: a YAML file, or one of recipes/{name} by name; flags override it")
    recipe = OneLineParser("evaluate", "", add_help=False)
    recipe.add_argument("--config")
    recipe.add_argument("--protocol", default="")
    with setting_up():
        chosen = recipe.parse_known_args(argv)[0]
        presets, preset = get_protocol(name).presets, chosen.protocol.rpartition(":")[2]
        for kind in (get_protocol(name).options, FeatureOptions):
            known = {spec.name for spec in declared(kind)}
            set_values(parser, kind, {key: value for key, value in presets.get(preset, {}).items() if key in known})
        if config := chosen.config:
            set_values(parser, get_protocol(name).options, read_recipe(name, config))
    return parse(parser, argv, needed)


def split_source(text: str) -> tuple[str, str]:
    """KEY=DATASET as a pair."""
    key, equals, dataset = text.partition("=")
    if not equals or not dataset:
        raise ValueError(f"--source is KEY=DATASET, not {text!r}")
    return key, dataset


def say(message: str) -> None:
    from ..distributed import process_state

    if process_state().is_main_process:
        print(message, file=sys.stderr, flush=True)
