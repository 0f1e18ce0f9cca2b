# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""PretrainingLoader: order as a pure function, exact resumption, disjoint ranks, workers that change nothing."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from itertools import chain, islice

import pytest
import torch

from visreg_training.data import MultiCrop, PretrainingLoader, Subset, TorchvisionReference, open_stream
from visreg_training.data.decode import open_image
from visreg_training.data.shards import ShardCursor
from visreg_training.data.stream_feed import StreamPlan, StreamReader
from visreg_training.seeding import image_generator


CROPS = MultiCrop(num_global=2, num_local=2, global_size=16, local_size=8)


def loader(source, **options) -> PretrainingLoader:
    return PretrainingLoader(source, CROPS, **{"batch_size": 8, "seed": 3, **options})


def take(batches, count: int) -> list:
    return list(islice(batches, count))


def same(a, b) -> bool:
    views = len(a.views) == len(b.views) and all(map(torch.equal, a.views, b.views))
    return views and a.ids == b.ids and torch.equal(a.labels, b.labels)


def assert_same(a: list, b: list) -> None:
    assert len(a) == len(b) and all(map(same, a, b))


@pytest.fixture(scope="module", params=["map", "stream"])
def source(request, five_shards):
    return open_stream(five_shards, streaming=request.param == "stream")


def test_batches_are_uint8_views_a_resolution(source):
    batch = next(loader(source))
    assert [view.shape for view in batch.views] == [(2, 8, 3, 16, 16), (2, 8, 3, 8, 8)]
    assert all(view.dtype == torch.uint8 and view.is_contiguous() for view in batch.views)
    assert batch.labels.shape == (8,) and batch.labels.dtype == torch.int64 and set(batch.labels.tolist()) <= {0, 1}
    assert len(set(batch.ids)) == 8


def test_an_epoch_has_each_image_once(source):
    """120 images, 15 batches of 8."""
    batches = loader(source)
    first = [name for batch in take(batches, 15) for name in batch.ids]
    second = [name for batch in take(batches, 15) for name in batch.ids]
    assert len(set(first)) == 120 and set(first) == set(second) and first != second


def test_the_seed_decides(source):
    assert_same(take(loader(source), 4), take(loader(source), 4))
    assert take(loader(source, seed=4), 1)[0].ids != take(loader(source), 1)[0].ids


def test_crops_change_with_the_epoch_and_only_with_it(source):
    batches = take(loader(source), 30)
    images = [
        {name: batch.views[0][:, column] for batch in part for column, name in enumerate(batch.ids)}
        for part in (batches[:15], batches[15:])
    ]
    assert not any(torch.equal(images[0][name], images[1][name]) for name in images[0])


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("cut", [3, 17, 50])
def test_resuming_goes_on_with_the_very_next_image(source, workers, cut):
    """Mid-block and mid-epoch, in epoch 0, 1 and 3, twice in a row."""
    whole = loader(source, num_workers=workers)
    take(whole, cut)
    position = json.loads(json.dumps(whole.position()))
    expected = take(whole, 6)
    whole.close()
    first = loader(source, num_workers=workers, position=position)
    assert_same(take(first, 3), expected[:3])
    position = json.loads(json.dumps(first.position()))
    first.close()
    second = loader(source, num_workers=workers, position=position)
    assert_same(take(second, 3), expected[3:])
    second.close()


def test_workers_change_nothing_of_a_map_style_order(five_shards):
    source = open_stream(five_shards)
    batches = [take(loader(source, num_workers=workers), 5) for workers in (0, 1, 2)]
    assert_same(batches[0], batches[1])
    assert_same(batches[0], batches[2])


def test_a_position_has_the_names_that_checkpoints_hold(source):
    """Renaming one would leave every checkpoint that was written before without a way to resume."""
    batches = loader(source)
    next(batches)
    position = batches.position()
    names = {"seed", "rank", "world_size", "batch_size", "data", "batch", "skipped"}
    if not source.is_map_style:
        names |= {"readers"}
        assert set(position["readers"][0]) == {"epoch", "block", "dealt", "cursors", "given", "taken"}
    assert set(position) == names
    assert set(position["skipped"]) == {"seen", "counts", "listed", "files", "lost", "names"}
    del position["skipped"]["files"], position["skipped"]["names"]  # as earlier versions wrote it
    loader(source, position=position).close()


@pytest.mark.parametrize("workers", [0, 2])
def test_torchvision_views_are_a_function_of_seed_epoch_and_image(five_shards, workers):
    """In epoch 1 as if nothing had been drawn before; torch's global generator is left alone."""
    source, reference = open_stream(five_shards), TorchvisionReference(CROPS, hue=0.2)
    batches = PretrainingLoader(source, reference, batch_size=8, seed=3, num_workers=workers)
    before = torch.get_rng_state()
    batch = take(batches, 16)[-1]
    batches.close()
    assert torch.equal(torch.get_rng_state(), before)
    assert [view.shape for view in batch.views] == [(2, 8, 3, 16, 16), (2, 8, 3, 8, 8)]
    opened = open_image(source.example(int(batch.ids[5])).data)
    torch.set_rng_state(image_generator(3, 1, (int(batch.ids[5]),)).get_state())
    expected = reference(opened.load())
    for view, crop in zip([*batch.views[0][:, 5], *batch.views[1][:, 5]], expected, strict=True):
        assert view.dtype == torch.float32 and torch.equal(view, crop)


def test_a_stream_resumes_with_another_number_of_workers(five_shards):
    """The position keeps the number of readers; any number of workers can serve them."""
    source = open_stream(five_shards, streaming=True)
    whole = loader(source, num_workers=2)
    take(whole, 5)
    position = whole.position()
    expected = take(whole, 6)
    whole.close()
    for workers in (0, 1, 2, 3):
        resumed = loader(source, num_workers=workers, position=position)
        assert_same(take(resumed, 6), expected)
        resumed.close()


def test_a_stream_resumes_by_reading_one_block_again(five_shards, monkeypatch):
    """100 images into an epoch of 120: what is read after a resume is the block and the row groups it stands in."""
    source = open_stream(five_shards, streaming=True)
    plan = StreamPlan(seed=0, reader=0, readers=1, units=5, stripes=1, open_shards=2, block_rows=16, turn=4)
    reader = StreamReader(source, plan)
    for _ in range(100):
        reader.next()
    state = json.loads(json.dumps(reader.state()))
    expected = [reader.next()[0].id for _ in range(30)]
    read = []
    original = ShardCursor.read

    def counting(cursor: ShardCursor, count: int) -> list:
        examples = original(cursor, count)
        read.extend(examples)
        return examples

    monkeypatch.setattr(ShardCursor, "read", counting)
    resumed = StreamReader(source, plan, state)
    assert [resumed.next()[0].id for _ in range(4)] == expected[:4]
    assert len(read) <= 32
    assert [resumed.next()[0].id for _ in range(26)] == expected[4:]


def test_ranks_are_disjoint_and_together_one_epoch(source):
    """Two ranks; a stream's are of unequal size, so an epoch of one may end before the other's."""
    count = 7 if source.is_map_style else 3
    ranks = [loader(source, rank=rank, world_size=2) for rank in range(2)]
    names = [[name for batch in take(rank, count) for name in batch.ids] for rank in ranks]
    assert len(set(names[0]) | set(names[1])) == 2 * count * 8


def test_map_style_ranks_share_one_global_batch(five_shards):
    """N ranks with B / N images see what one rank with B sees."""
    source = open_stream(five_shards)
    single = take(loader(source, batch_size=16), 3)
    halves = [take(loader(source, rank=rank, world_size=2), 3) for rank in range(2)]
    for whole, *parts in zip(single, *halves, strict=True):
        assert whole.ids == [name for pair in zip(*(part.ids for part in parts), strict=True) for name in pair]


RANK = """
import json, sys
from visreg_training.data import MultiCrop, PretrainingLoader, open_stream
source = open_stream(sys.argv[1], streaming=True)
share = {"rank": int(sys.argv[2]), "world_size": 2, "num_workers": 1}
batches = PretrainingLoader(source, MultiCrop(1, 0, 8), batch_size=4, seed=1, **share)
names = [next(batches).ids for _ in range(60)]
batches.close()
print(json.dumps(names))
"""


@pytest.mark.cpu
def test_two_processes_over_five_shards_of_unequal_size(five_shards):
    """Both take the same number of steps (four epochs' worth), and in an epoch no image is read by both."""
    command = [sys.executable, "-c", RANK, str(five_shards)]
    ranks = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True) for rank in range(2)]
    names = [json.loads(process.communicate(timeout=120)[0].splitlines()[-1]) for process in ranks]
    assert [len(batches) for batches in names] == [60, 60]
    # Each rank's first epoch is what the shards assigned to it hold.
    first = [set(chain(*batches[:10])) for batches in names]
    assert len(first[0]) == len(first[1]) == 40 and not first[0] & first[1]
    assert len(set(chain(*names[0], *names[1]))) == 120


def test_more_readers_than_shards(tmp_path, write_image_dataset):
    """One file of 40 images, 4 workers x 3 ranks: every image once a rank's epoch, none twice."""
    source = open_stream(write_image_dataset(tmp_path / "data", [40], side=(12, 12)), streaming=True)
    seen = []
    for rank in range(3):
        batches = loader(source, batch_size=1, rank=rank, world_size=3, num_workers=2)
        seen += [name for batch in take(batches, 6) for name in batch.ids]
        batches.close()
    assert len(set(seen)) == len(seen) == 18


def test_a_set_smaller_than_a_global_batch_is_refused(five_shards):
    with pytest.raises(
        ValueError, match="120 images, fewer than a global batch of 128: set global_batch_size to at most 120"
    ):
        loader(open_stream(five_shards), batch_size=64, world_size=2)


@pytest.mark.parametrize("change", [{"seed": 4}, {"batch_size": 4}, {"world_size": 2}])
def test_a_position_of_another_run_is_refused(source, change):
    batches = loader(source)
    next(batches)
    with pytest.raises(ValueError, match=f"saved with {next(iter(change))}"):
        loader(source, position=batches.position(), **change)


def test_a_position_of_other_data_is_refused(five_shards):
    position = loader(open_stream(five_shards)).position()
    with pytest.raises(ValueError, match="saved with data"):
        loader(open_stream(five_shards, subset=Subset(fraction=0.5)), position=position)


def test_waiting_is_measured_and_closing_stops_the_workers(five_shards):
    before = set(multiprocessing.active_children())
    batches = loader(open_stream(five_shards), num_workers=2)
    assert batches.wait_seconds == 0
    next(batches)
    assert batches.wait_seconds > 0
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    batches.close()
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()
    with pytest.raises(StopIteration):
        next(batches)


SIGNALLED = """
import multiprocessing, signal, sys
from visreg_training.data import MultiCrop, PretrainingLoader, open_stream
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[2])
    received = []
    signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    signal.signal(signal.SIGINT, lambda number, _frame: received.append(number))
    batches = PretrainingLoader(open_stream(sys.argv[1]), MultiCrop(1, 0, 8), batch_size=4, num_workers=2)
    if sys.argv[3] == "running":
        next(batches), next(batches)  # both workers have started
    print("ready", flush=True)
    sys.stdin.readline()
    made = [next(batches) for _ in range(40)]
    print(len(made), sorted(received) == [signal.SIGINT, signal.SIGTERM])
"""


@pytest.fixture
def signalled(five_shards, tmp_path):
    """signalled(start method, when) -> SIGNALLED, a group of processes that is ready for signals."""
    script, processes = tmp_path / "signalled.py", []
    script.write_text(SIGNALLED)

    def start(method: str, when: str) -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        command = [sys.executable, str(script), str(five_shards), method, when]
        processes.append(subprocess.Popen(command, start_new_session=True, **pipes))
        assert processes[0].stdout.readline() == "ready\n"
        return processes[0]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


METHODS = ["fork", "spawn", "forkserver"]


@pytest.mark.parametrize("when", ["starting", "running"])
@pytest.mark.parametrize("method", METHODS)
def test_a_signal_to_the_process_group_is_the_parents_to_handle(signalled, method, when):
    """What Ctrl-C and SLURM do; a parent that wants to finish still gets its batches, and ends, though nobody
    closed the loader.
    """
    process = signalled(method, when)
    os.killpg(process.pid, signal.SIGTERM)
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate("go on\n", timeout=120)
    assert (process.returncode, out) == (0, "40 True\n"), errors[-2000:]


@pytest.mark.parametrize("method", METHODS)
def test_workers_end_when_their_parent_is_killed(signalled, method):
    """Their ends of its pipes are closed then; one that lived on would keep the memory of its batches."""
    process = signalled(method, "running")
    process.kill()
    process.communicate(timeout=60)


def test_a_stream_subset_reads_its_share(five_shards):
    part = open_stream(five_shards, streaming=True, subset=Subset(fraction=0.3, seed=1))
    names = {raw.id for raw in part.raw_examples()}
    assert 20 < len(names) < 52
    batches = take(loader(part, batch_size=4), 30)
    assert {name for batch in batches for name in batch.ids} == names
