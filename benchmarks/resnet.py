# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""ResNet-18 on CIFAR-10: our loop beside one on lightly's parts, images a second and 20-NN accuracy in one run.

    python -m benchmarks.resnet --data CIFAR10_FOLDER --output FOLDER [--minutes 20]

The network of lightly's and solo-learn's tables: timm's ResNet-18 with a 3 x 3 first convolution and no pooling after
it, random weights. Both sides have the same views (`SETTINGS["cifar10"]`), batch (64: an update of 256 images takes a
CPU core most of a minute), projector, slices, optimizer and schedule (cosine to a thousandth, a tenth of it warmup),
and as many updates as fit the time at the slower side's rate. Each side is a process of its own, and so is the network
before its first update. Those tables train 200 to 1000 epochs: what fits here is a part of one, so the accuracies
stand beside each other, not beside theirs. Images a second are the median of short runs of the sides in turn, so that
minutes in which the machine is slower are no side's own.
"""

import argparse
import json
import statistics
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import nn

from visreg_training.backbones import TimmBackbone
from visreg_training.config import LearningRateSchedule
from visreg_training.data import open_stream
from visreg_training.evaluation.frozen import frozen_accuracy

from .lightly_loop import SETTINGS, LightlyLoop
from .measuring import add_measure, in_fresh_process, machine


SIDES = ("ours", "lightly")
TIMED, ROUNDS = 5, 3  # updates of a short run, of which the first is left out; and how many such runs a side has
IMAGES = {"train": 5_000, "test": 2_000}  # that 20-NN reads
OPTIONS = SETTINGS["cifar10"] | {
    "model": "timm/resnet18", "projection_size": 128, "projector_hidden_size": 2048, "global_batch_size": 64
}  # fmt: skip


def cifar_stem(network: nn.Module) -> None:
    """A stem for images of 32 px, in place: 3 x 3 without stride, and no pooling."""
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()


def random_network() -> nn.Module:
    """The network before its first update."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model("resnet18", num_classes=0)
    cifar_stem(network)
    return network


def accuracy(network: nn.Module, data: Path) -> float:
    """20-NN accuracy on the test images."""
    backbone = TimmBackbone("resnet18", network)
    backbone.native_size = (32, 32)
    examples = [open_stream(str(data), split=split).examples(limit=count, seed=0) for split, count in IMAGES.items()]
    with backbone.evaluating():
        return frozen_accuracy(backbone, *examples).accuracy["knn"]


class LightlyResNet(LightlyLoop):
    """lightly's side with this network."""

    def __init__(self, files: str, options: dict[str, Any]):
        super().__init__(files, options | {"model": "vit_tiny"})
        from visreg_training.loop.optimizer import parameter_groups

        from .lightly_loop import make_projector

        self.backbone = random_network()
        self.projector = make_projector(options | {"hidden_size": 512})
        self.module = nn.ModuleList([self.backbone, self.projector])
        groups = parameter_groups(self.module, options["weight_decay"])
        self.optimizer = torch.optim.AdamW(groups, lr=options["learning_rate"], fused=True)


def lightly_side(data: Path, steps: int) -> tuple[nn.Module, float]:
    """The network after so many updates, and images a second."""
    loop = LightlyResNet(str(data / "data" / "train-*.parquet"), OPTIONS)
    schedule = LearningRateSchedule(OPTIONS["learning_rate"], steps, max(1, steps // 10))
    loop.step(schedule.learning_rate(0))
    started = time.perf_counter()
    for step in range(1, steps):
        loop.step(schedule.learning_rate(step))
    return loop.backbone, (steps - 1) * OPTIONS["global_batch_size"] / (time.perf_counter() - started)


def our_side(data: Path, steps: int, folder: Path) -> tuple[nn.Module, float]:
    """The same through the parts that `pretrain` makes."""
    from visreg_training.backbones import wrap_backbone
    from visreg_training.config import from_keywords
    from visreg_training.loop.run import build_run
    from visreg_training.loop.updates import prepare, updates
    from visreg_training.loop.views import build_batches

    shape = ("hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size", "drop_path_rate")
    options = {name: value for name, value in OPTIONS.items() if name not in shape} | {"from_scratch": True}
    place = {"dataset": str(data), "output_dir": str(folder), "online_probe": False}
    length = {"max_steps": steps, "epochs": 10, "warmup_epochs": 1}
    run = build_run(from_keywords(**options | place | length), choose_missing=False)
    network = wrap_backbone(run.model).module
    cifar_stem(network)
    with closing(build_batches(run)) as batches:
        every = updates(run, prepare(run), batches)
        next(every)
        started = time.perf_counter()
        for _update in every:
            pass
        seconds = time.perf_counter() - started
    return network, (steps - 1) * OPTIONS["global_batch_size"] / seconds


def measure(side: str, data: str, output: str, steps: int, judged: bool) -> dict[str, Any]:
    """One side in this process; without steps, random weights."""
    if not steps:
        network, rate = random_network(), None
    elif side == "ours":
        network, rate = our_side(Path(data), steps, Path(output) / side)
    else:
        network, rate = lightly_side(Path(data), steps)
    return {"side": side, "updates": steps, "images_per_second": rate} | (
        {"knn": accuracy(network.eval(), Path(data))} if judged else {}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the CIFAR-10 data set, with data/*.parquet")
    parser.add_argument("--output", help="folder of resnet.json")
    parser.add_argument("--minutes", type=float, default=20, help="of training, both sides together (default: 20)")
    add_measure(parser)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    Path(arguments.output).mkdir(parents=True, exist_ok=True)
    where = (str(Path(arguments.data).resolve()), str(Path(arguments.output).resolve()))
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(ROUNDS):
        for side in SIDES:
            rates[side].append(in_fresh_process("resnet", side, *where, TIMED, False)["images_per_second"])
    medians = {side: statistics.median(each) for side, each in rates.items()}
    steps = max(TIMED, int(30 * arguments.minutes * min(medians.values()) / OPTIONS["global_batch_size"]))
    rows = [in_fresh_process("resnet", "random weights", *where, 0, True)]
    rows += [in_fresh_process("resnet", side, *where, steps, True) for side in SIDES]
    content = json.dumps({"machine": machine(), "rates": rates, "rows": rows}, indent=1)
    (Path(arguments.output) / "resnet.json").write_text(content)
    print(f"\n{machine()}\n\n| side | updates | images/s | 20-NN |\n|---|---:|---:|---:|")
    for row in rows:
        rate = f"{medians[row['side']]:.1f}" if row["updates"] else ""
        print(f"| {row['side']} | {row['updates']} | {rate} | {100 * row['knn']:.1f} |")


if __name__ == "__main__":
    main()
