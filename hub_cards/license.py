# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The license of weights, and where they come from. Non-commercial weights keep their license, whatever is trained on.

The released VISReg weights are CC BY-NC 4.0 (their Hub repository); what is trained from scratch here is Apache 2.0
unless its owner says otherwise.
"""

from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from visreg_training.run_folder import RunFolder, read_object

from .header import parse_card, read_card_text


OWN = "apache-2.0"
RELEASED_REPOSITORY = "BooBooWu/visreg"
RELEASED_LICENSE = "cc-by-nc-4.0"
RELEASED_FILES = ("visreg-vit-b-inet1k.pth", "visreg-vit-l-inet1k.pth")

# The Hub's identifiers that weights are given, in words; "other" asks for more fields than a card of ours fills.
KNOWN = {
    "apache-2.0": "Apache 2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD 3-Clause",
    "bsd-2-clause": "BSD 2-Clause",
    "cc0-1.0": "CC0 1.0",
    "cc-by-4.0": "CC BY 4.0",
    "cc-by-sa-4.0": "CC BY-SA 4.0",
    "cc-by-nc-4.0": "CC BY-NC 4.0, no commercial use",
    "cc-by-nc-sa-4.0": "CC BY-NC-SA 4.0, no commercial use",
    "openrail": "OpenRAIL",
    "creativeml-openrail-m": "CreativeML OpenRAIL-M",
    "gpl-3.0": "GPL 3.0",
    "lgpl-3.0": "LGPL 3.0",
    "mpl-2.0": "MPL 2.0",
    "agpl-3.0": "AGPL 3.0",
    "gpl-2.0": "GPL 2.0",
    "gpl": "GPL",
    "lgpl-2.1": "LGPL 2.1",
    "lgpl": "LGPL",
    "bsd": "BSD",
    "bsd-3-clause-clear": "BSD 3-Clause Clear",
    "isc": "ISC",
    "zlib": "zlib",
    "unlicense": "Unlicense",
    "wtfpl": "WTFPL",
    "bsl-1.0": "Boost 1.0",
    "artistic-2.0": "Artistic 2.0",
    "afl-3.0": "AFL 3.0",
    "ecl-2.0": "ECL 2.0",
    "epl-1.0": "EPL 1.0",
    "epl-2.0": "EPL 2.0",
    "eupl-1.1": "EUPL 1.1",
    "eupl-1.2": "EUPL 1.2",
    "ms-pl": "MS-PL",
    "ncsa": "NCSA",
    "osl-3.0": "OSL 3.0",
    "postgresql": "PostgreSQL",
    "lppl-1.3c": "LPPL 1.3c",
    "ofl-1.1": "OFL 1.1",
    "odbl": "ODbL",
    "odc-by": "ODC-By",
    "pddl": "PDDL",
    "cdla-permissive-1.0": "CDLA Permissive 1.0",
    "cdla-permissive-2.0": "CDLA Permissive 2.0",
    "cdla-sharing-1.0": "CDLA Sharing 1.0",
    "c-uda": "C-UDA",
    "cc": "Creative Commons",
    "cc-by-2.0": "CC BY 2.0",
    "cc-by-2.5": "CC BY 2.5",
    "cc-by-3.0": "CC BY 3.0",
    "cc-by-sa-3.0": "CC BY-SA 3.0",
    "cc-by-nd-4.0": "CC BY-ND 4.0",
    "cc-by-nc-2.0": "CC BY-NC 2.0, no commercial use",
    "cc-by-nc-3.0": "CC BY-NC 3.0, no commercial use",
    "cc-by-nc-nd-3.0": "CC BY-NC-ND 3.0, no commercial use",
    "cc-by-nc-nd-4.0": "CC BY-NC-ND 4.0, no commercial use",
    "cc-by-nc-sa-2.0": "CC BY-NC-SA 2.0, no commercial use",
    "cc-by-nc-sa-3.0": "CC BY-NC-SA 3.0, no commercial use",
    "openrail++": "OpenRAIL++",
    "bigscience-openrail-m": "BigScience OpenRAIL-M",
    "bigscience-bloom-rail-1.0": "BigScience BLOOM RAIL 1.0",
    "bigcode-openrail-m": "BigCode OpenRAIL-M",
    "unknown": "unknown",
}


# Of weights under a license of their own (DINOv3's): what is made of them keeps it, and its card leads to theirs.
CARRIED = "other"


class Origin(NamedTuple):
    """Where weights come from: the Hub id they derive from, and their license; None where that is not known."""

    base_model: str | None
    license: str | None


def origin_of(initialized_from: str | None) -> Origin:
    """The origin of a run that started from `initialized_from`: nothing, a Hub id, or a directory.

    The card of a run lies in its model/, and is that of its pretraining/ and checkpoints too. A run without one, such
    as one that was killed, has the origin that it recorded.
    """
    if not initialized_from:
        return Origin(None, OWN)
    directory = Path(initialized_from).expanduser()
    if not directory.exists() and is_hub_id(initialized_from):
        return Origin(initialized_from, RELEASED_LICENSE if initialized_from == RELEASED_REPOSITORY else None)
    run = _run_of(directory)
    for card in (directory / "README.md", *([run.model / "README.md"] if run else [])):
        if card.is_file():
            return origin_of_card(read_card_text(card))
    return (run and origin_of_record(read_object(run.record))) or Origin(None, None)


def recorded_origin(initialized_from: str | None) -> Origin:
    """`origin_of`, for the record of a run that has just read the weights: of a Hub id the Hub's card is asked too."""
    origin = origin_of(initialized_from)
    if origin.license is not None or origin.base_model is None or origin.base_model != initialized_from:
        return origin
    try:
        card = read_card_text(Path(hf_hub_download(origin.base_model, "README.md")))
    except (HfHubHTTPError, OSError, ValueError):  # no card, or no network any more
        return origin
    return Origin(origin.base_model, origin_of_card(card).license)


def origin_of_record(record: dict[str, Any]) -> Origin | None:
    """The origin that run.json states, None if it states none."""
    stated = record.get("origin")
    if not isinstance(stated, dict):
        return None
    return _checked_origin(stated.get("base_model"), stated.get("license"))


def _run_of(directory: Path) -> RunFolder | None:
    """The run that a directory is, or whose model/, pretraining/ or checkpoint it is."""
    directory = directory.absolute()
    for folder in map(RunFolder, (directory, directory.parent, directory.parent.parent)):
        own = (folder.path, folder.model, folder.pretraining)
        if folder.recipe.is_file() and (directory in own or directory.parent == folder.checkpoints):
            return folder
    return None


def origin_of_file(name: str) -> Origin:
    """The origin of weights in a file: known for the released ones, by their name."""
    if Path(name).name in RELEASED_FILES:
        return Origin(RELEASED_REPOSITORY, RELEASED_LICENSE)
    return Origin(None, None)


def origin_of_card(text: str) -> Origin:
    """The origin that the text of a card states; unknown, too, if its header cannot be read."""
    try:
        data = parse_card(text, ignore_errors=True).data
    except ValueError:
        return Origin(None, None)
    return _checked_origin(data.base_model, data.license)


def _checked_origin(base_model: Any, license: Any) -> Origin:
    """What a file states, without what is no Hub id or no known license."""
    base = base_model if isinstance(base_model, str) and is_hub_id(base_model) else None
    return Origin(base, license if isinstance(license, str) and license in (*KNOWN, CARRIED) else None)


def chosen_license(asked: str | None, origin: Origin) -> str | None:
    """The license of weights of this origin whose owner asked for `asked` (None: no wish); None if it is not known.

    Raises:
        ValueError: the name is not known, or non-commercial weights would become free for any use.
    """
    if origin.license == CARRIED:
        if asked not in (None, CARRIED):
            raise ValueError(f"the weights derive from weights with a license of their own and keep it, not {asked}.")
        return CARRIED
    if asked is not None and asked not in KNOWN:
        raise ValueError(f"license '{asked}' is not one of the Hub's that are known here: {', '.join(KNOWN)}.")
    bound = origin.license is not None and "-nc-" in origin.license
    if bound and asked not in (None, origin.license):
        raise ValueError(f"the weights derive from {origin.license} weights and keep that license, not {asked}.")
    return asked or origin.license


def license_name(license: str) -> str:
    """The name of a known license, or of one that weights brought."""
    return "that of the weights they derive from" if license == CARRIED else KNOWN[license]


def is_hub_id(name: str) -> bool:
    """Whether a name has the form `organization/name` of the Hub."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1
