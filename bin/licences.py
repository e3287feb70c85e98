"""Lists the licence of each locked package, and says which may not be used where the package stands.

Called by ``make licences`` inside .venv, whose packages tell their licences themselves. What the image carries is given
to others, so its licences are those that ask for no source of what is used beside them. Tools are only run here. The
exit status is 1 when a package has a licence that is not allowed there, or tells none.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What is given to others, and what is run here only.
CARRIED = ("service/requirements.txt",)
RUN = ("requirements/bench.txt",)
PERMISSIVE = (
    r"MIT|MIT-0|MIT-CMU|0BSD|BSD|BSD-[23]-Clause|Apache-2\.0|ISC|PSF-2\.0|Python-2\.0|Unlicense|Zlib|HPND|CC0-1\.0|ZPL-2\.1|"
    r"Public Domain"
)
# A library that is loaded as it was published, and whose source is where it came from.
LIBRARY = r"LGPL-[23](\.\d)?(-only|-or-later)?|MPL-2\.0"
TOOL = r"GPL-[23]\.0(-only|-or-later)?"
ALLOWED = {True: f"{PERMISSIVE}|{LIBRARY}", False: f"{PERMISSIVE}|{LIBRARY}|{TOOL}"}
# What packages write that knew no SPDX, in lower case, by a pattern for all of it.
NAMES = {
    r"(the )?mit( license)?": "MIT",
    r"(the )?(modified |new |revised |3-clause )?bsd([ -]3)?([ -]clause)?( license)?": "BSD-3-Clause",
    r"(the )?apache( software)?( license)?([ ,v-]*(version )?2(\.0)?)?( license)?": "Apache-2.0",
    r"isc( license)?( \(iscl\))?": "ISC",
    r"mozilla public license 2\.0( \(mpl 2\.0\))?": "MPL-2.0",
    r"python software foundation license|psfl?": "PSF-2.0",
    r"gnu (library or )?lesser general public license.*|lgpl.*": "LGPL-3.0-or-later",
    r"gnu general public license( v3)?\b.*|gplv3.*": "GPL-3.0-or-later",
    r"gnu affero.*|agpl.*": "AGPL-3.0-only",
    r"the unlicense( \(unlicense\))?": "Unlicense",
}
# Packages whose metadata tell none, or hold the text; what the file LICENSE of each says.
TOLD_ELSEWHERE = {"axe-playwright-python": "MIT", "cycler": "BSD-3-Clause", "kiwisolver": "BSD-3-Clause"}


def packages(lock: Path) -> dict[str, str]:
    """Package -> version, of those that a lock pins and that are installed here."""
    names = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*])?==", lock.read_text(), re.MULTILINE)
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # for another interpreter or system
            continue
    return found


def spdx(text: str) -> str:
    """A licence in SPDX's words as far as they are known; the text itself where they are not."""
    for pattern, name in NAMES.items():
        if re.fullmatch(pattern, text.strip().lower()):
            return name
    return text.strip()


def licence(name: str) -> str:
    """The licence that a package tells: its expression, else its classifiers, else a field that was free text."""
    if name in TOLD_ELSEWHERE:
        return TOLD_ELSEWHERE[name]
    told = metadata.metadata(name)
    if "License-Expression" in told:
        return told["License-Expression"]
    classifiers = [
        text.rpartition(" :: ")[2] for text in told.get_all("Classifier", []) if text.startswith("License ::")
    ]
    exact = {spdx(text) for text in classifiers} - {"OSI Approved", "DFSG approved", "BSD License"}
    if exact:  # which of them holds is not told, so each must be allowed
        return " AND ".join(sorted(exact))
    lines = "".join(told.get_all("License", [])).strip().splitlines()
    if lines and len(lines[0]) <= 80 and lines[0].lower() not in ("unknown", ""):
        return spdx(lines[0])
    return "BSD-3-Clause" if "BSD License" in classifiers else ""


def allowed(expression: str, carried: bool) -> bool:
    """Whether a package under this licence may be used: one alternative of an OR, and all terms of an AND."""
    terms = expression.replace("(", " ").replace(")", " ")
    return any(
        all(re.fullmatch(ALLOWED[carried], term.partition(" WITH ")[0].strip()) for term in alternative.split(" AND "))
        for alternative in terms.split(" OR ")
    )


def main(arguments: list[str]) -> int:
    """Prints one line a package, those that are refused last."""
    refused = []
    for lock in (*CARRIED, *RUN):
        for name, version in sorted(packages(ROOT / lock).items()):
            expression = licence(name)
            line = f"{lock}: {name} {version}: {expression or 'no licence told'}"
            if not allowed(expression, lock in CARRIED):
                refused.append(line)
            elif "--refused" not in arguments:
                print(line)
    for line in refused:
        print(f"REFUSED {line}", file=sys.stderr)
    return int(bool(refused))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
