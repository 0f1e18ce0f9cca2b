# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Views colored one batch ahead: what a run sees, and where it resumes, are those of the loader's."""

from contextlib import closing

import numpy as np
import pytest
import torch
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from visreg_training.config import from_keywords
from visreg_training.data import DeviceAugment, MultiCrop, MultiViewBatch, PretrainingLoader, open_stream
from visreg_training.loop.views import StepAugment, ViewBatches, build_augment, build_multi_crop
from visreg_training.seeding import torch_generator


SEED, RANK = 3, 0
CROPS = MultiCrop(num_global=2, num_local=2, global_size=16, local_size=8)
STEPS = 7
on_each_device = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


@pytest.fixture(scope="module", params=["map", "stream"])
def source(request, tmp_path_factory):
    """80 images in four parquet files."""
    folder, draws = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for number in range(4):
        images = [Image.fromarray(draws.integers(0, 256, (24, 24, 3), np.uint8)) for _ in range(20)]
        dataset = Dataset.from_dict({"image": images}, features=Features({"image": ImageFeature()}))
        dataset.to_parquet(folder / f"train-{number:05d}-of-00004.parquet")
    return open_stream(folder, streaming=request.param == "stream")


def make_loader(source, position: dict | None = None, workers: int = 0) -> PretrainingLoader:
    return PretrainingLoader(source, CROPS, batch_size=8, seed=SEED, position=position, num_workers=workers)


def make_batches(
    source, position: dict | None = None, step: int = 0, workers: int = 0, device: str = "cpu"
) -> ViewBatches:
    augment = StepAugment(DeviceAugment(), torch.device(device), SEED, RANK)
    return ViewBatches(make_loader(source, position, workers), augment, step, STEPS)


def expected(source, workers: int = 0) -> list[tuple[MultiViewBatch, dict]]:
    """Each step's batch and the place after it: from the loader, colored by the definition."""
    found = []
    with closing(make_loader(source, workers=workers)) as loader:
        for step in range(STEPS):
            batch = next(loader)
            colors = torch_generator("color", SEED, step, RANK)
            colored = [DeviceAugment()(group.flatten(0, 1), colors).view(group.shape) for group in batch.views]
            found.append((batch._replace(views=colored), loader.position()))
    return found


def assert_equal(batch: MultiViewBatch, right: MultiViewBatch) -> None:
    assert batch.ids == right.ids and torch.equal(batch.labels, right.labels)
    for made, views in zip(batch.views, right.views, strict=True):
        torch.testing.assert_close(made.cpu(), views, rtol=0, atol=0 if made.device.type == "cpu" else 1e-4)


@on_each_device
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_ahead_are_those_of_the_loader(source, workers, device):
    right = expected(source, workers)
    with closing(make_batches(source, workers=workers, device=device)) as batches:
        for batch, place in right:
            assert_equal(next(batches), batch)
            assert batches.position() == place
    assert batches.wait_seconds > 0


def test_views_stay_until_the_next_step_is_asked_for(source):
    with closing(make_batches(source)) as batches:
        batch = next(batches)
        batches.waiting[1].result()  # the colors of the next batch are on
        assert_equal(batch, expected(source)[0][0])


@on_each_device
def test_a_run_resumes_where_it_stood_and_not_where_the_thread_was(source, device):
    right = expected(source)
    with closing(make_batches(source, device=device)) as batches:
        for _ in range(3):
            next(batches)
        place = batches.position()
    with closing(make_batches(source, place, step=3, device=device)) as resumed:
        for step in range(3, STEPS):
            assert_equal(next(resumed), right[step][0])


@on_each_device
def test_nothing_is_asked_of_the_data_after_the_last_step(source, device):
    with closing(make_batches(source, device=device)) as batches:
        ahead = []
        for _ in range(STEPS):
            next(batches)
            ahead.append(batches.loader.position()["batch"])
    assert ahead == [*range(2, STEPS + 1), STEPS]


@pytest.mark.gpu
@pytest.mark.parametrize("busy", ["model", "colors"])
def test_streams_wait_for_each_other(source, busy):
    """Nothing here waits for the GPU, so all steps are enqueued before the first has run: views that a late model has
    not read yet must not be written over, those of a late thread must not be read.
    """
    right, seen = expected(source), []
    with closing(make_batches(source, device="cuda")) as batches:
        slow = torch.cuda.current_stream() if busy == "model" else batches.side.stream
        for _ in range(STEPS):
            batch = next(batches)
            with torch.cuda.stream(slow):
                torch.cuda._sleep(40_000_000)  # clock cycles
            seen.append(batch._replace(views=[group.clone() for group in batch.views]))
    for batch, (expected_batch, _place) in zip(seen, right, strict=True):
        assert_equal(batch, expected_batch)


@on_each_device
def test_two_sets_of_memory_take_turns(source, device):
    with closing(make_batches(source, device=device)) as batches:
        places = [[group.data_ptr() for group in next(batches).views] for _ in range(STEPS)]
    assert places[2:] == places[:-2] and len({place for step in places for place in step}) == 4


def test_other_accelerators_color_when_the_step_comes(source):
    """Their path, on the meta device: nothing is made ahead, and the views are where the model is."""
    right = expected(source)
    with closing(make_batches(source, device="meta")) as batches:
        for batch, place in right:
            made = next(batches)
            assert made.ids == batch.ids and batches.position() == batches.loader.position() == place
            kinds = [(views.device.type, views.dtype, views.shape) for views in made.views]
            assert kinds == [("meta", torch.float32, views.shape) for views in batch.views]
    assert batches.waited == 0


def test_a_failure_of_the_colors_reaches_the_run(source, monkeypatch):
    def broken(*_):
        raise MemoryError("no room for the views")

    monkeypatch.setattr(DeviceAugment, "color", broken)
    with closing(make_batches(source)) as batches, pytest.raises(MemoryError, match="no room"):
        next(batches)


def test_the_augmentation_is_what_the_options_say():
    given = {"num_local": 3, "local_scale": (0.1, 0.2), "rotation": 5.0, "hue": 0.05, "solarize_probability": 0.3}
    options = from_keywords(("dataset",), dataset="digits", **given)
    reference = build_multi_crop(options.replace(augment_backend="torchvision"))
    assert reference.multi_crop == build_multi_crop(options) and reference.options == build_augment(options).options
    made = vars(reference.multi_crop) | vars(reference.options)
    assert {name: made[name] for name in given} == given and made["num_global"] == 4
