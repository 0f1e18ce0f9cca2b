# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg evaluate PROTOCOL --model M --dataset D`, `visreg evaluate suite`, `visreg evaluate compare`."""

import logging
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..backbones import POOLINGS, open_backbone
from ..errors import RunStopped, UserError, setting_up
from ..evaluation.compare import REFERENCES, compare
from ..evaluation.features import FeatureCache, FeatureSettings
from ..evaluation.heads import LEARNING_RATES
from ..evaluation.linear import HeadOptions
from ..evaluation.processes import processes
from ..evaluation.results import read_result, write_result
from ..evaluation.run import PROTOCOLS, Request, evaluate, run_suite
from ..evaluation.suite_table import ENTRIES, SUITES
from ..evaluation.task import SELECTIONS, Sources, open_sources
from .parsing import OneLineParser


USAGE = """usage: visreg evaluate PROTOCOL --model MODEL --dataset DATASET [options]

  knn         k nearest neighbours on frozen features
  linear      linear classifier on frozen features, all learning rates at once
  fewshot     1, 5 and 10 images a class, several draws
  retrieval   mean average precision and recall
  segment     linear head on patch tokens, mean IoU
  finetune    the whole network, with transformers' Trainer
  suite       every data set of a suite: in_domain, ood, or a list of data sets
  compare     result files side by side, beside published figures

`visreg evaluate PROTOCOL --help` lists the options. Several processes: accelerate launch, or torchrun."""


def main(argv: list[str]) -> None:
    """Raises UserError for a mistake, RunStopped where data sets of a suite could not be reached."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE)
        return
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    name, rest = argv[0], argv[1:]
    commands = {"compare": run_compare, "suite": run_suite_command, "segment": segment_command}
    commands["finetune"] = finetune_command
    if name in PROTOCOLS:
        run_protocol(name, rest)
    elif name in commands:
        commands[name](rest)
    else:
        raise UserError(f"there is no protocol '{name}'; there are {', '.join((*PROTOCOLS, *commands))}")


def run_protocol(name: str, argv: list[str]) -> None:
    """knn, linear, fewshot or retrieval on one data set."""
    parser = OneLineParser(f"evaluate {name}", f"{name} on frozen features")
    add_model_options(parser)
    add_data_options(parser)
    add_feature_options(parser)
    add_protocol_options(parser, name)
    parser.add_argument("--output", type=Path, help="a .json file, or a folder (a run's evaluation/)")
    options = parser.parse_args(argv)
    with setting_up():
        model, sources = open_backbone(options.model, options.trust_remote_code), sources_of(options)
        result = evaluate(model, sources, request_of(name, options), FeatureCache(options.cache_dir))
    report(result, options.output)


def run_suite_command(argv: list[str]) -> None:
    """Every data set of a suite."""
    known = f"{', '.join(SUITES)}, or some of {', '.join(ENTRIES)} with commas"
    parser = OneLineParser("evaluate suite", "one protocol on every data set of a suite; goes on where it was cut off")
    add_model_options(parser)
    add_feature_options(parser)
    parser.add_argument("--suite", default="in_domain", help=f"{known} (default in_domain)")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="linear", help="(default linear)")
    parser.add_argument("--source", action="append", default=[], metavar="KEY=DATASET", help="local folder or Hub id")
    parser.add_argument("--output", type=Path, required=True, help="folder of the result files")
    add_protocol_options(parser, *PROTOCOLS)
    options = parser.parse_args(argv)
    with setting_up():
        sources = dict(split_source(text) for text in options.source)
        request = request_of(options.protocol, options)
        model = open_backbone(options.model, options.trust_remote_code)
        cache = FeatureCache(options.cache_dir)
        results, unreached = run_suite(model, options.suite, request, options.output, cache, sources, say)
    if not processes().is_main_process:
        return
    if results:
        table = compare(results)
        (options.output / "table.md").write_text(table, encoding="utf-8")
        print(table)
    if unreached:
        lines = [f"{key} ({reason})" for key, reason in unreached.items()]
        raise RunStopped(f"{len(unreached)} data sets were not reached: {'; '.join(lines)}")


def run_compare(argv: list[str]) -> None:
    """Result files side by side."""
    parser = OneLineParser("evaluate compare", "result files side by side, beside published figures")
    parser.add_argument("files", nargs="+", type=Path, help="result files")
    parser.add_argument(
        "--references", choices=REFERENCES, default="matching", help="published rows (default matching)"
    )
    parser.add_argument("--output", type=Path, help="markdown file")
    options = parser.parse_args(argv)
    with setting_up():
        table = compare([read_result(path) for path in options.files], options.references)
        if options.output:
            options.output.write_text(table, encoding="utf-8")
    print(table, end="")


def segment_command(argv: list[str]) -> None:
    """A linear head on patch tokens."""
    from ..evaluation.segment import add_segment_options, segment

    parser = OneLineParser("evaluate segment", "linear head on frozen patch tokens, mean IoU")
    add_model_options(parser)
    add_data_options(parser, validation=False)
    add_segment_options(parser)
    parser.add_argument("--output", type=Path, help="a .json file, or a folder")
    options = parser.parse_args(argv)
    with setting_up():
        result = segment(open_backbone(options.model, options.trust_remote_code), options)
    report(result, options.output)


def finetune_command(argv: list[str]) -> None:
    """The whole network."""
    from ..evaluation.finetune import add_finetune_options, finetune  # here: the Trainer takes seconds to import

    parser = OneLineParser("evaluate finetune", "fine-tuning with transformers' Trainer")
    add_model_options(parser)
    add_data_options(parser)
    add_finetune_options(parser)
    parser.add_argument(
        "--output", type=Path, required=True, help="folder of the fine-tuned model and the result file"
    )
    options = parser.parse_args(argv)
    with setting_up():
        result = finetune(options, sources_of(options))
    report(result, options.output)


def report(result: dict | None, output: Path | None) -> None:
    """Writes and prints a result, on the main process."""
    if result is None:
        return
    if output is not None:
        print(f"written to {write_result(result, output)}", file=sys.stderr)
    print(compare([result]), end="")
    for name, value in result["metrics"].items():
        if isinstance(value, dict):
            value = f"{value['value']:.4f} ({value['interval'][0]:.4f} to {value['interval'][1]:.4f})"
        print(f"{name}: {value if isinstance(value, int | str) else f'{value:.4f}'}")


def say(message: str) -> None:
    if processes().is_main_process:
        print(message, file=sys.stderr, flush=True)


def add_model_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, help="directory or Hub id that AutoModel opens, timm:NAME[:FILE], or a run folder"
    )
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that a Hub repository brings")


def add_data_options(parser: ArgumentParser, validation: bool = True) -> None:
    parser.add_argument("--dataset", required=True, help="digits, a Hub id, a folder, or a glob of files")
    parser.add_argument("--dataset_config", help="configuration of a Hub data set")
    parser.add_argument("--revision", help="commit, branch or tag of a Hub data set")
    parser.add_argument("--train_split", default="train", help="(default train)")
    parser.add_argument("--test_split", default="test", help="(default test)")
    if validation:
        parser.add_argument("--validation_split", help="default: `validation` where there is one, else part of train")
        parser.add_argument("--train_share", type=float, help="share to train on of a data set with one split")
    parser.add_argument("--image_column", help="default: found by its type")
    parser.add_argument("--label_column", help="default: found by its type")
    parser.add_argument("--streaming", type=boolean, help="read shards in sequence; default: for Hub ids")


def add_feature_options(parser: ArgumentParser) -> None:
    parser.add_argument("--layers", type=int, default=4, help="blocks from the end, concatenated (default 4: paper)")
    parser.add_argument("--pooling", choices=POOLINGS, help="default: cls where there is one, else mean")
    parser.add_argument("--image_size", type=int, help="pixels; default: the model's native size")
    parser.add_argument("--limit", type=int, help="at most so many images of a split, drawn by --seed")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="(default float32)")
    parser.add_argument("--batch_size", type=int, default=256, help="images embedded at once (default 256)")
    parser.add_argument("--cache_dir", type=Path, help="of features; default: visreg/features in the user's cache")
    parser.add_argument("--seed", type=int, default=0, help="(default 0)")


def add_protocol_options(parser: ArgumentParser, *names: str) -> None:
    add = parser.add_argument
    if "knn" in names or "linear" in names:
        add("--selection", choices=SELECTIONS, default="validation", help="`test`: as in papers; marked in the result")
    if "knn" in names:
        add("--k", type=int, nargs="+", default=[20], help="neighbours; the best of several is chosen (default 20)")
        add("--temperature", type=float, nargs="+", default=[0.07], help="(default 0.07)")
    if "linear" in names:
        add(
            "--images",
            choices=("cached", "augmented"),
            default="cached",
            help="augmented: random crops and flips (paper)",
        )
        add(
            "--solver",
            choices=("sgd", "lbfgs"),
            default="sgd",
            help="lbfgs: full batches, for small sets (default sgd)",
        )
        add("--epochs", type=int, default=100, help="(default 100)")
        add(
            "--learning_rates",
            type=float,
            nargs="+",
            default=list(LEARNING_RATES),
            help="default: 13 from 1e-4 to 0.5",
        )
        add("--weight_decays", type=float, nargs="+", default=[0.0], help="(default 0)")
        add("--head_batch_size", type=int, default=256, help="of the heads' SGD (default 256)")
    if "fewshot" in names:
        add("--shots", type=int, nargs="+", default=[1, 5, 10], help="images a class (default 1 5 10)")
        add("--draws", type=int, default=5, help="at least 5 (default 5)")
    if "retrieval" in names:
        add("--recall_at", type=int, nargs="+", default=[1, 5, 10], help="(default 1 5 10)")
        add("--gallery", choices=("train", "test"), default="train", help="what is ranked (default train)")


def request_of(protocol: str, options: Namespace) -> Request:
    """The request that the options stand for."""
    given = vars(options)
    values = {
        "selection": given.get("selection", "validation"),
        "seed": options.seed,
        "batch_size": options.batch_size,
    }
    values["features"] = FeatureSettings(
        options.layers, options.pooling, options.image_size, options.limit, options.precision, options.seed
    )
    if options.batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {options.batch_size}")
    if protocol == "knn":
        values |= {"ks": tuple(options.k), "temperatures": tuple(options.temperature)}
    if protocol == "linear":
        rates, decays = tuple(options.learning_rates), tuple(options.weight_decays)
        heads = HeadOptions(rates, decays, options.epochs, options.head_batch_size, options.seed)
        values |= {"heads": heads, "solver": options.solver, "images": options.images}
    if protocol == "fewshot":
        values |= {"shots": tuple(options.shots), "draws": options.draws}
    if protocol == "retrieval":
        values |= {"recalls": tuple(options.recall_at), "gallery": options.gallery}
    return Request(protocol, **values)


def sources_of(options: Namespace) -> Sources:
    names = ("dataset_config", "revision", "image_column", "label_column", "streaming")
    columns = {name: getattr(options, name) for name in names}
    splits = (options.train_split, options.test_split, options.validation_split, options.train_share)
    return open_sources(options.dataset, *splits, **columns)


def split_source(text: str) -> tuple[str, str]:
    key, equals, dataset = text.partition("=")
    if not equals or not dataset:
        raise ValueError(f"--source is KEY=DATASET, not {text!r}")
    return key, dataset


def boolean(text: str) -> bool:
    """ValueError for anything but true and false: "False" must not be true."""
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"
