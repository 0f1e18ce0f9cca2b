# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A source written as parquet files of smaller images, which `open_stream` reads as any data set on the Hub.

    FOLDER/data/train-00000-of-00007.parquet   columns image and label, names of files and of classes as they were
    FOLDER/skipped-train.jsonl                 images that could not be read, if any
    FOLDER/.packing-train/                     the files that are whole, while others are still to be written

Images keep their order. Whoever is killed goes on after the last whole file: each says in its metadata what it was
made from, with which options, and after which image the next one begins.
"""

import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
from datasets import ClassLabel, Features, Image, List, Value

from ..errors import RunStopped
from ..locks import Lock
from ..progress import Track
from ..run_folder import Json, atomic_file, check_writable, read_json, write_json, write_text
from .decode import RawExample
from .options import PackOptions
from .pack_image import PackedImage, begin_worker, pack_images
from .skips import UNREADABLE_FILE, BadDataError, SkipLog, skip_record
from .sources import Source


ROW_GROUP = 100  # images; what a stream reads at once (the Hub's advice for images)
MEGABYTE = 1_000_000
_CHUNK = 32  # images that a worker is given at once
_METADATA = b"visreg_pack"
# Of what a pack was made from: what says something to a reader.
_SAYING = ("dataset", "revision", *(spec.name for spec in fields(PackOptions)))


@dataclass
class PackReport:
    """What a pack holds.

    Attributes:
        images: written, of them `copied` byte for byte.
        before, after: bytes of these images then and now.
        files: parquet files.
        skipped: records of images that could not be read.
        key: `RawExample.key` of the last image that was looked at.
        seen: images that were looked at.
    """

    images: int = 0
    copied: int = 0
    before: int = 0
    after: int = 0
    files: int = 0
    seen: int = 0
    key: tuple[int, ...] | None = None
    skipped: list[dict] = field(default_factory=list)

    def __post_init__(self):
        self.key = None if self.key is None else tuple(self.key)  # JSON made a list of it


class PackFolder:
    """Names in the folder of a pack, and what a split of it holds already."""

    def __init__(self, folder: Path, split: str, request: Json):
        self.folder, self.split, self.request = folder, split, request
        self.data = folder / "data"
        self.packing = folder / f".packing-{split}"
        self.skipped = folder / f"skipped-{split}.jsonl"
        self.finished = self.packing / "finished.json"
        self.lock = Lock(folder / f".lock-{split}")

    def part(self, number: int) -> Path:
        return self.packing / f"{number:05d}.parquet"

    def final(self, number: int, count: int) -> Path:
        return self.data / f"{self.split}-{number:05d}-of-{count:05d}.parquet"

    def finals(self) -> list[Path]:
        return sorted(self.data.glob(f"{self.split}-*-of-*.parquet"))

    def resume(self) -> PackReport:
        """What the whole files hold; what a kill left of another one is deleted.

        Raises:
            ValueError: they were made from other images or with other options.
        """
        for leftover in self.packing.glob(".*.part.parquet"):
            leftover.unlink()
        report = PackReport()
        while self.part(report.files).is_file():
            report = self._after(self.part(report.files), report)
        return report

    def done(self) -> PackReport | None:
        """The report of a split that is whole; None where there is none.

        Raises:
            ValueError: it was made from other images or with other options, or by something else.
        """
        if not self.finals():
            return None
        report = PackReport()
        for path in self.finals():
            report = self._after(path, report)
        return report

    def packed(self) -> PackReport | None:
        """The report of images that are all packed, and may still have to be put in place.

        Raises:
            ValueError: as `resume`.
        """
        record = read_json(self.finished)
        if record is None:
            return None
        self._check(self.finished, record["request"])
        return PackReport(**record["report"])

    def finish(self, report: PackReport) -> None:
        """Put the files in place under their final names; a kill in between is made good by the next call."""
        write_json(self.finished, {"request": self.request, "report": asdict(report)})
        self.data.mkdir(exist_ok=True)
        for number in range(report.files):
            if self.part(number).is_file():
                os.replace(self.part(number), self.final(number, report.files))
        self.list_skipped(report.skipped)
        self.finished.unlink()
        shutil.rmtree(self.packing)

    def _after(self, path: Path, report: PackReport) -> PackReport:
        """The report of `path` and of the files before it, whose report is given."""
        content = (parquet.read_schema(path).metadata or {}).get(_METADATA)
        if content is None:
            raise ValueError(f"{path} was not written by `visreg pack`: choose another folder")
        record = json.loads(content)
        self._check(path, record["request"])
        state = record["report"]
        return PackReport(**state | {"skipped": report.skipped + state["skipped"]})

    def _check(self, path: Path, request: Json) -> None:
        if request == self.request:
            return
        differing = [name for name, value in self.request.items() if request.get(name) != value]
        named = [
            f"{name} {request.get(name)}, not {self.request[name]}" for name in differing if name != "fingerprint"
        ]
        raise ValueError(
            f"{path} was made {'with ' + ', '.join(named) if named else 'from other images'}: choose another folder, "
            f"or delete what that one holds of {self.split}"
        )

    def list_skipped(self, skipped: list[dict]) -> None:
        if skipped:
            write_text(self.skipped, "".join(json.dumps(record) + "\n" for record in skipped))


def pack(
    source: Source,
    folder: Path,
    options: PackOptions,
    *,
    root: str | None = None,
    num_workers: int = 0,
    max_bad_share: float = 0.01,
) -> PackReport:
    """Write a split, or what of it is still missing.

    Args:
        source: what `open_stream` opened.
        folder: of the pack; other splits may be in it.
        options: size, format and quality of the images.
        root: folder of the source, from which its images are named; None where they are named already.
        num_workers: processes that decode and encode; 0 for this one alone.
        max_bad_share: share of unreadable images above which it ends.

    Raises:
        ValueError: the folder holds another pack, or another process writes into it.
        BadDataError: more than `max_bad_share` of the images cannot be read; they are listed in the folder.
        RunStopped: a worker process was killed.
    """
    request = {"dataset": source.name, "split": source.split, "revision": source.revision}
    request |= {"fingerprint": source.fingerprint, **asdict(options)}
    place = PackFolder(folder, source.split, request)
    check_writable(folder / "data")
    folder.mkdir(parents=True, exist_ok=True)
    if not place.lock.take():
        raise ValueError(f"another process packs {source.split} into {folder}")
    with place.lock:
        begun = place.part(0).is_file() or place.finished.is_file()
        report = None if begun else place.done()
        if report is None:
            place.packing.mkdir(exist_ok=True)
            report = place.packed() or _Packing(source, place, options, root, max_bad_share).run(num_workers)
            place.finish(report)
    return report


class _Packing:
    """The rows of the file under way, and what is written when it is full.

    Attributes:
        report: of all files that are whole, and of the images in `rows`.
        listed: how many records of `report.skipped` the whole files hold.
    """

    def __init__(
        self, source: Source, place: PackFolder, options: PackOptions, root: str | None, max_bad_share: float
    ):
        self.source, self.place, self.options, self.root = source, place, options, root
        self.schema = _features(source).arrow_schema
        self.report = place.resume()
        self.listed = len(self.report.skipped)
        self.images: list[dict] = []
        self.labels: list[object] = []
        self.size = 0
        total = source.num_examples
        self.log = SkipLog(
            max_bad_share, enough=min(1000, total or 1000), total=total, shards=source.num_shards,
            flag="--max_bad_share",
        )  # fmt: skip
        self.log.load(_log_state(self.report))

    def run(self, num_workers: int) -> PackReport:
        """Read, pack and write all that is missing."""
        track = Track(self.source.num_examples, f"packing {self.source.split}")
        track.begin_at(self.report.seen)
        raws = self.source.raw_examples_after(self.report.key, self.lost)
        try:
            for chunk, packed in _in_order(raws, self.options, num_workers):
                for raw, image in zip(chunk, packed, strict=True):
                    self.add(raw, image)
                track.add(len(chunk))
            self.write()
        except BadDataError:
            self.place.list_skipped(self.report.skipped)
            raise
        finally:
            track.close()
        if not self.report.images:
            raise BadDataError(f"{self.source.name}: none of the {self.report.seen} images can be read")
        return self.report

    def add(self, raw: RawExample, image: PackedImage) -> None:
        """One more image; a file that is full is written first."""
        if self.size >= self.options.shard_mb * MEGABYTE:
            self.write()
        name = _name(raw.path, self.root)
        self.report.seen += 1
        self.report.key = raw.key
        if image.data is None:
            return self.skip([skip_record(image.kind, raw.id, name, image.detail)])
        self.log.add(1, [])
        self.images.append({"bytes": image.data, "path": name})
        self.labels.append(raw.label)
        self.size += len(image.data)
        self.report.images += 1
        self.report.copied += image.copied
        self.report.before += image.before
        self.report.after += len(image.data)

    def skip(self, records: list[dict]) -> None:
        """Images that cannot be read."""
        self.report.skipped += records
        self.log.add(len(records), records)

    def lost(self, records: list[dict]) -> None:
        """Row groups that cannot be read; one that was met before a kill is met again."""
        known = {record["id"] for record in self.report.skipped}
        self.report.skipped += [record for record in records if record["id"] not in known]
        self.log.add(0, records)

    def write(self) -> None:
        """The rows as a file, whole or absent."""
        if not self.images:
            return
        columns: dict[str, list] = {"image": self.images}
        if "label" in self.schema.names:
            columns["label"] = self.labels
        path, self.report.files = self.place.part(self.report.files), self.report.files + 1
        state = asdict(self.report) | {"skipped": self.report.skipped[self.listed :]}
        record = json.dumps({"request": self.place.request, "report": state}).encode()
        schema = self.schema.with_metadata({**(self.schema.metadata or {}), _METADATA: record})
        table = arrow.Table.from_pydict(columns, schema=schema)
        with atomic_file(path) as part:
            parquet.write_table(table, part, row_group_size=ROW_GROUP, compression="none")
        self.listed = len(self.report.skipped)
        self.images, self.labels, self.size = [], [], 0


def _in_order(
    raws: Iterator[RawExample], options: PackOptions, num_workers: int
) -> Iterator[tuple[list[RawExample], list[PackedImage]]]:
    """Images and what became of them, some at a time."""
    chunks = iter(lambda: list(islice(raws, _CHUNK)), [])
    if num_workers == 0:
        yield from ((chunk, pack_images(chunk, options)) for chunk in chunks)
        return
    waiting: deque = deque()
    pool = ProcessPoolExecutor(num_workers, get_context("spawn"), begin_worker)
    try:
        for chunk in chunks:
            waiting.append((chunk, pool.submit(pack_images, chunk, options)))
            if len(waiting) > 2 * num_workers:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    except BrokenProcessPool as error:
        raise RunStopped(
            "a process that packs images was killed: where memory was short, fewer --num_workers need less; "
            "the same command goes on where it was"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _features(source: Source) -> Features:
    """The columns of a pack: an image, and the label where the source has one."""
    features = Features({"image": Image()})
    if source.label_column is None:
        return features
    label = ClassLabel(names=source.label_names) if source.label_names else Value("int64")
    several = isinstance(source.dataset.features[source.label_column], List)
    return Features({**features, "label": List(label) if several else label})


def _name(path: str | None, root: str | None) -> str | None:
    """The name that an image had: below the folder of the source, or as the source says it."""
    if path is None or not os.path.isabs(path):
        return path
    if root is not None and Path(path).is_relative_to(root):
        return Path(path).relative_to(root).as_posix()
    return Path(path).name


def _log_state(report: PackReport) -> dict:
    """What `SkipLog.load` takes, of what was skipped before."""
    files = [record for record in report.skipped if record["kind"] == UNREADABLE_FILE]
    return {
        "seen": report.seen,
        "counts": Counter(record["kind"] for record in report.skipped),
        "listed": [record["id"] for record in report.skipped],
        "files": [record["id"] for record in files],
        "lost": {record["id"]: record.get("share_of_shard", 1.0) for record in files},
    }
