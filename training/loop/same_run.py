# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Whether a run that goes on is the one that was begun: its options, its processes, its images.

Images are compared by what they are (names below their folder, sizes, labels), not by how their folder is spelled: it
may have moved. images.json lists them, so that a change can be named; it stays in the run's folder.
"""

from collections import Counter
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ..bounded import LARGEST_LOG, check_shape
from ..config import PretrainOptions, free_on_resume
from ..data import Source
from ..errors import UserError
from ..run_folder import Json, RunFolder, read_object


if TYPE_CHECKING:
    from .checkpoint import RunState


# What these name is compared by its content, or, of the weights that a run began with, is in its checkpoint.
SPELLED = ("dataset", "file_list", "initialize_from")
MOST_LISTED = 20_000  # files; of more than these, their number in each folder is listed
MOST_FOLDERS = 2_000
_NAMED = 3  # files in a message


def check_same_run(state: "RunState", options: PretrainOptions, processes: int) -> list[str]:
    """Lines that name the options changed since the checkpoint and allowed to.

    Raises:
        UserError: an option changed that the continuation could not survive, or the number of processes did.
    """
    before, recipe = state.recipe, options.as_recipe()
    changed = [name for name, value in recipe.items() if name in before and before[name] != value]
    fatal = [name for name in changed if name not in free_on_resume() and name not in SPELLED]
    if fatal:
        named = ", ".join(f"{name} ({before[name]} -> {recipe[name]})" for name in fatal)
        raise UserError(
            f"the run cannot be continued with another {named}: use the old value, or start another run from its "
            f"weights: {way_round(options)}"
        )
    if len(state.positions or []) != processes:
        raise UserError(
            f"the run was started with {len(state.positions or [])} processes, not {processes}: "
            f"its data order needs the same number; another run may start from its weights: {way_round(options)}"
        )
    return [f"{name}: {before[name]} -> {recipe[name]}" for name in changed]


def check_same_images(state: "RunState", source: Source, options: PretrainOptions) -> None:
    """Raises UserError, with what changed, unless the images are those that the run began with, wherever they lie."""
    saved = [position.get("data") for position in state.positions or []]
    if all(one == source.fingerprint for one in saved if isinstance(one, str)):  # the loader refuses what is none
        return
    folder = RunFolder(str(options.output_dir))
    raise UserError(
        f"the run cannot be continued with other images: {what_changed(folder, source)}; put back what it began with, "
        f"or start another run from its weights: {way_round(options)}"
    )


def way_round(options: PretrainOptions) -> str:
    """Flags of a run that goes on from the weights of this one: longer, or on other processes."""
    folder = RunFolder(str(options.output_dir))
    start = folder.path if folder.finished() else folder.newest_checkpoint() or folder.path
    return f"--initialize_from {start} --output_dir ANOTHER"


def listing(source: Source) -> Json:
    """The content of images.json: how many images there are, and their local files, or how many of them are where."""
    listed: Json = {"images": source.num_examples}
    if len(source.files) <= MOST_LISTED:
        return listed | {"files": dict(source.files)}
    counts = Counter(str(PurePosixPath(*PurePosixPath(name).parts[:-1])) for name, _size in source.files)
    return listed | {"folders": dict(counts.most_common(MOST_FOLDERS))}


def what_changed(folder: RunFolder, source: Source) -> str:
    """`17 images now, 16 before: x.jpg is new`, as far as the files of the run say it."""
    now = listing(source)
    try:
        before, record = read_object(folder.images, LARGEST_LOG), read_object(folder.record)
        check_shape(before, {"images": int, "files": {}, "folders": {}}, str(folder.images))
        check_shape(record, {"source": {}}, str(folder.record))
    except ValueError as error:
        return f"{now['images']} images now, and what they were cannot be told ({error})"
    said = []
    if now["images"] != before.get("images", now["images"]):
        said.append(f"{now['images']} images now, {before['images']} before")
    for name, one in (("files", ""), ("folders", "the number of files in ")):
        if name in now and before.get(name):
            said += _differences(before[name], now[name], one)
    if not said:  # the same files, of which another split, column or commit is read
        old, new = record.get("source") or {}, source.description()
        names = ("dataset", "config", "split", "revision", "image_column", "label_column", "subset")
        said = [f"{name} {old.get(name)} -> {new[name]}" for name in names if old.get(name) != new[name]]
    counted = said[:1] if said and said[0].endswith(" before") else []
    return ": ".join([*counted, ", ".join(said[len(counted) :])]).removesuffix(": ") or "their labels or order changed"


def _differences(before: Json, now: Json, one: str) -> list[str]:
    """What is new, gone, or changed of (name, size or count), a few of each named."""
    found = {
        "new": [name for name in now if name not in before],
        "gone": [name for name in before if name not in now],
        "not the same": [name for name in now if name in before and now[name] != before[name]],
    }
    lines = []
    for what, names in found.items():
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            are = "are" if len(names) > 1 else "is"
            lines.append(f"{one}{', '.join(names[:_NAMED])}{more} {are} {what}")
    return lines
