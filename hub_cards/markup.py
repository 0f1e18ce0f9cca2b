# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Text that users wrote (names, paths) as text in a card: it cannot end the YAML, open a tag, a link or a table cell.

Templates are rendered by `template`: every value that they print is escaped, unless it is `Markdown` already.
"""

import re
import unicodedata
from typing import Any

import jinja2


LONGEST = 200

# What Markdown may take for structure becomes a character reference, which it does not; all else stands as it is, so
# that the source of a card can be read: an underscore inside a word, a colon before a space. A colon in "http:" or the
# dot of "www." would be enough for an automatic link, and the Hub reads formulas between dollars.
_UNSAFE = re.compile(r"[\\`*\[\]<>{}|~&$@^]|(?<![^\W_])_|_(?![^\W_])|:(?!\s|$)|(?<=www)\.", re.IGNORECASE)
# A dash, a hash or a number with a dot at the start of a line would begin a list, a heading or a rule.
_FIRST = re.compile(r"^(?=[-+=#]|\d+[.)](\s|$))(.)")


class Markdown(str):
    """A string that is Markdown on purpose."""


def plain(text: Any, longest: int = LONGEST) -> str:
    """One line of visible characters: no control, no bidirectional and no zero-width characters, at most `longest`."""
    spaced = "".join(" " if char.isspace() else char for char in unicodedata.normalize("NFC", str(text)))
    line = " ".join("".join(char for char in spaced if unicodedata.category(char)[0] != "C").split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def escaped(text: Any) -> Markdown:
    """`text` as Markdown that shows it and nothing else, on one line."""
    if isinstance(text, Markdown):
        return text
    line = _UNSAFE.sub(lambda match: f"&#{ord(match[0])};", plain(text))
    return Markdown(_FIRST.sub(lambda match: f"&#{ord(match[2])};", line))


def fenced(content: str, language: str = "") -> Markdown:
    """A code block that its content cannot end."""
    runs = [len(run) for run in re.findall(r"`+", content)]
    fence = "`" * max(3, *(length + 1 for length in runs)) if runs else "```"
    return Markdown(f"{fence}{language}\n{content.rstrip()}\n{fence}")


def slug(text: Any) -> str:
    """A name for identifiers: letters, digits, dots and dashes."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", plain(text)).strip("-.") or "model"


def template(name: str, **filters) -> jinja2.Template:
    """A template of this package, with more filters. A name that it uses and is not given is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        autoescape=False,
        finalize=escaped,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"fixed": Markdown, **filters}
    return environment.get_template(name)
