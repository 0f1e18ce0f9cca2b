# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Images a second that one core prepares for pretraining: ours, the torchvision reference, lightly's DINOTransform.

    python -m benchmarks.data --data FOLDER_OR_HUB_ID [--split train] [--images 200] [--memory 10000]

Rates are of CPU time in one thread, so that they hold for a core whatever else the machine does; pipelines take turns,
several rounds, and the best round of each counts. `worker` is what a loader's worker does (open, decode, 4 x 224 + 6 x
96 crops, collate in uint8), `device` the color on this CPU (on a GPU it is not the CPU's to do), `decode` the floor:
pure JPEG decoding.
"""

import argparse
import io
import json
import multiprocessing
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from PIL import Image

from visreg_training.data import DeviceAugment, MultiCrop, PretrainingLoader, Source, TorchvisionReference, open_stream
from visreg_training.data.batch import BatchBuilder


_BATCH = 16


def decode(raws: list) -> None:
    """Pure decoding with Pillow."""
    for raw in raws:
        Image.open(io.BytesIO(raw.data) if raw.data is not None else raw.path).convert("RGB")


def worker(raws: list) -> list[torch.Tensor]:
    """What a worker of our loader does for a batch."""
    builder = BatchBuilder(MultiCrop(), len(raws), seed=0)
    for raw in raws:
        builder.add(raw, epoch=0)
    return builder.finish(None).views


def worker_and_device(raws: list, augment: DeviceAugment, generator: torch.Generator, outputs: dict) -> None:
    """The worker, then the color on this CPU, in the memory of the last batch as the training loop does."""
    for views in worker(raws):
        outputs[views.shape] = augment(views.flatten(0, 1), generator, outputs.get(views.shape))


def one_by_one(raws: list, transform: Callable) -> None:
    """A pipeline that takes a PIL image and returns views, collated as a loader would."""
    views = [
        transform(Image.open(io.BytesIO(raw.data) if raw.data is not None else raw.path).convert("RGB"))
        for raw in raws
    ]
    for same_size in zip(*views, strict=True):
        torch.stack(same_size)


def lightly_transform() -> Callable | None:
    """lightly's DINOTransform with four global-sized and six local crops, its own defaults otherwise; None where it is
    not installed.
    """
    try:
        from lightly.transforms import DINOTransform
    except ImportError:
        return None
    transform = DINOTransform(n_local_views=6)
    # Two global transforms come with it; four global views as in the paper's recipe take each of them twice.
    transform.transforms = transform.transforms[:2] * 2 + transform.transforms[2:]
    return transform


def measure(pipelines: dict[str, Callable], raws: list, rounds: int) -> dict[str, float]:
    """Images a second of CPU time, the best round of each."""
    batches = [raws[start : start + _BATCH] for start in range(0, len(raws) - _BATCH + 1, _BATCH)]
    best = dict.fromkeys(pipelines, 0.0)
    for _ in range(rounds):
        for name, pipeline in pipelines.items():
            started = time.process_time()
            for batch in batches:
                pipeline(batch)
            best[name] = max(best[name], len(batches) * _BATCH / (time.process_time() - started))
    return best


def memory_growth(source: Source, images: int) -> dict[str, float]:
    """Memory of a loader's worker, in MB, over so many images: the peak in the first tenth, and over all.

    `own` is what the worker does not share with its parent (it is forked, so torch and the libraries are shared);
    `resident` counts them too.
    """
    loader = PretrainingLoader(source, MultiCrop(), batch_size=_BATCH, num_workers=1)
    (worker_process,) = multiprocessing.active_children()
    peaks: dict[str, int] = {}
    for done in range(0, images, _BATCH):
        next(loader)
        for name, size in worker_memory(worker_process.pid).items():
            peaks[name] = max(peaks.get(name, 0), size)
            if done < images / 10:
                peaks[f"{name}_in_the_first_tenth"] = peaks[name]
    loader.close()
    return peaks | {"images": images}


def worker_memory(pid: int) -> dict[str, int]:
    """Megabytes of a process, as Linux accounts for them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines}
    return {"own": sizes["Private_Clean"] + sizes["Private_Dirty"], "resident": sizes["Rss"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="what open_stream takes: a folder, a glob, a Hub id")
    parser.add_argument("--split", default="train")
    parser.add_argument("--streaming", action="store_true")
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--memory", type=int, default=0, metavar="N", help="measure a worker's memory over N images instead"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = open_stream(arguments.data, split=arguments.split, streaming=arguments.streaming or None)
    if arguments.memory:
        print(json.dumps(memory_growth(source, arguments.memory)))
        return
    raws = list(islice(source.raw_examples(), arguments.images))
    augment, generator, outputs = DeviceAugment(), torch.Generator().manual_seed(0), {}
    reference = TorchvisionReference(MultiCrop())
    pipelines = {
        "decode": decode,
        "worker": worker,
        "worker + device on CPU": lambda batch: worker_and_device(batch, augment, generator, outputs),
        "torchvision reference": lambda batch: one_by_one(batch, reference),
    }
    if transform := lightly_transform():
        pipelines["lightly DINOTransform"] = lambda batch: one_by_one(batch, transform)
    rates = measure(pipelines, raws, arguments.rounds)
    base = rates["torchvision reference"]
    print(f"{len(raws)} images of {source.name}, 4 x 224 + 6 x 96, images a second a core:")
    for name, rate in rates.items():
        print(f"  {name:24s} {rate:8.1f}   {rate / base:5.1f} x the reference")
    print(f"  decoding is {rates['worker'] / rates['decode']:.0%} of the worker's time")


if __name__ == "__main__":
    main()
