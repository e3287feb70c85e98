# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which arguments a Dockerfile takes, so that a build argument that it would not look at is refused."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

# The parser directive for another escape character, at the beginning of the file.
ESCAPE = re.compile(r"(?:[ \t]*#[ \t]*\w+[ \t]*=.*\n)*?[ \t]*#[ \t]*escape[ \t]*=[ \t]*([\\`])", re.IGNORECASE)
COMMENT = re.compile(r"^[ \t]*(?:#.*)?\n", re.MULTILINE)
ARG = re.compile(r"^[ \t]*ARG[ \t]+(.+)$", re.IGNORECASE | re.MULTILINE)
# What BuildKit takes without an ARG (Dockerfile reference: predefined, platform and built-in build arguments).
PREDEFINED = re.compile(
    r"(?:HTTP|HTTPS|FTP|ALL|NO)_PROXY|(?:http|https|ftp|all|no)_proxy"
    r"|(?:BUILD|TARGET)(?:PLATFORM|OS|ARCH|VARIANT)|TARGETSTAGE|BUILDKIT_\w+|SOURCE_DATE_EPOCH"
)


def declared_arguments(text: str) -> list[str]:
    """The names that a Dockerfile's ARG instructions declare, each once, in order."""
    found = ESCAPE.match(text)
    escape = re.escape(found[1] if found else "\\")
    whole = re.sub(rf"{escape}[ \t]*\n", " ", COMMENT.sub("", f"{text}\n"))
    return list(dict.fromkeys(word.partition("=")[0] for line in ARG.findall(whole) for word in _words(line)))


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def wrong_arguments(text: str, arguments: Mapping[str, object]) -> list[str]:
    """One sentence for each build argument that the Dockerfile does not take, or that has no value."""
    known = declared_arguments(text)
    has = f"it has {', '.join(known)}" if known else "it has none"
    return [
        f"titanic_image_build_arguments: the Dockerfile has no ARG {name}; {has}. Correct the name, or leave it out."
        for name in map(str, arguments)
        if name not in known and not PREDEFINED.fullmatch(name)
    ] + [
        f"titanic_image_build_arguments: {name} is no text or number. Give it a value, or leave it out."
        for name, value in arguments.items()
        if not isinstance(value, (str, int, float))
    ]
