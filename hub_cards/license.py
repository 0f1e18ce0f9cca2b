# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The license of weights, and where they come from. Non-commercial weights keep their license, whatever is trained on.

The released VISReg weights are CC BY-NC 4.0 (their Hub repository); what is trained from scratch here is Apache 2.0
unless its owner says otherwise.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from visreg_training.run_folder import RunFolder, read_object

from .header import parse_card, read_card_text
from .markup import Markdown


OWN = "apache-2.0"
RELEASED_REPOSITORY = "BooBooWu/visreg"
RELEASED_LICENSE = "cc-by-nc-4.0"
RELEASED_FILES = ("visreg-vit-b-inet1k.pth", "visreg-vit-l-inet1k.pth")

# The Hub's identifiers that weights are given, in words; "other" has a name of its own.
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


# A license that the Hub has no identifier for. What is made of weights under one (DINOv3's) keeps it.
OTHER = "other"
_AS_BASE = "see-base-model"  # its name where weights came without it: the link leads to them
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,95}")  # what the Hub takes
_LINK = re.compile(r"https?://[^\s<>\"'`()\[\]\\]{1,500}")


class License(NamedTuple):
    """The Hub's identifier; the license `other` has a `name`, and a `link` to its text where one is known."""

    id: str
    name: str | None = None
    link: str | None = None


class Origin(NamedTuple):
    """Where weights come from: the Hub id they derive from, and their license; None where that is not known."""

    base_model: str | None
    license: str | None
    license_name: str | None = None
    license_link: str | None = None

    @property
    def terms(self) -> License | None:
        return License(self.license, self.license_name, self.license_link) if self.license else None


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
    return Origin(origin.base_model, *origin_of_card(card)[1:])


def origin_of_record(record: dict[str, Any]) -> Origin | None:
    """The origin that run.json states, None if it states none."""
    stated = record.get("origin")
    if not isinstance(stated, dict):
        return None
    return _checked_origin(*map(stated.get, Origin._fields))


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
    return _checked_origin(data.base_model, data.license, data.license_name, data.license_link)


def _checked_origin(base_model: Any, license: Any, name: Any, link: Any) -> Origin:
    """What a file states, without what is no Hub id, no known license, or no name or link of one."""
    base = base_model if isinstance(base_model, str) and is_hub_id(base_model) else None
    if license != OTHER:
        return Origin(base, license if isinstance(license, str) and license in KNOWN else None)
    named = name if isinstance(name, str) and _NAME.fullmatch(name) and name != _AS_BASE else None
    return Origin(base, OTHER, named, link if isinstance(link, str) and _LINK.fullmatch(link) else None)


def asked_license(license: str | None, name: str | None, link: str | None) -> License | None:
    """What --license, --license_name and --license_link ask for; None where nothing is.

    Raises:
        ValueError: the license is not known, or name and link are not such as the Hub takes or not those of `other`.
    """
    if license != OTHER and (name or link):
        raise ValueError("license_name and license_link are those of the license 'other': give --license other.")
    if license is None:
        return None
    if license not in (*KNOWN, OTHER):
        known = f"{', '.join(KNOWN)}, or other with --license_name"
        raise ValueError(f"license '{license}' is not one of the Hub's that are known here: {known}.")
    if name is not None and not _NAME.fullmatch(name):
        raise ValueError(f"license_name is of small letters, digits, dots and hyphens, as acme-1.0, not '{name}'.")
    if link is not None and not _LINK.fullmatch(link):
        raise ValueError(f"license_link is a web address, http:// or https://, not '{link}'.")
    return License(license, name, link)


def chosen_license(asked: License | None, origin: Origin) -> License | None:
    """The license of weights of this origin whose owner asked for `asked` (None: no wish); None if it is not known.

    Raises:
        ValueError: `other` has no name, or weights that are bound to a license would come under another one.
    """
    if origin.license == OTHER:
        return _carried(asked, origin)
    bound = origin.license is not None and "-nc-" in origin.license
    if bound and asked is not None and asked.id != origin.license:
        raise ValueError(f"the weights derive from {origin.license} weights and keep that license, not {asked.id}.")
    if asked is not None and asked.id == OTHER and not asked.name:
        raise ValueError("license 'other' needs its name: --license_name (and --license_link, where its text is).")
    return asked or origin.terms


def _carried(asked: License | None, origin: Origin) -> License:
    """The license of their own that weights came with; a name for it only where they came without one."""
    asked = asked or License(OTHER)
    named = origin.license_name is not None and asked.name is not None
    if asked.id != OTHER or (named and asked.name != origin.license_name):
        wish = asked.name or asked.id
        raise ValueError(f"the weights derive from weights with a license of their own and keep it, not {wish}.")
    base = origin.base_model and f"https://huggingface.co/{origin.base_model}"
    name = origin.license_name or asked.name or _AS_BASE
    return License(OTHER, name, origin.license_link or asked.link or base)


def license_title(license: License) -> str:
    """A license in words, as Markdown; of `other` its name, with the link to its text."""
    if license.id != OTHER:
        return KNOWN[license.id]
    if license.name in (None, _AS_BASE):
        return "that of the weights they derive from"
    return Markdown(f"[{license.name}]({license.link})") if license.link else license.name


def is_hub_id(name: str) -> bool:
    """Whether a name has the form `organization/name` of the Hub."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1
