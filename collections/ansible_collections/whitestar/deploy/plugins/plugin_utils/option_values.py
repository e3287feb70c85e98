# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether each value is one that its option may have, whatever the others are."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

PORTS = range(1, 65536)
# The least and the most that a number may be, where that is not anything from 0 on. Of the workers it is the service's
# own rule (TITANIC_WORKERS).
LIMITS = {
    "titanic_api_workers": (1, 64),
    "titanic_api_replicas": (1, inf),
    "titanic_api_ready_seconds": (1, inf),
    "titanic_api_probation_error_share": (0, 1),
    "titanic_backup_full_days": (0, inf),
    "titanic_backup_keep_full": (1, inf),
    "titanic_backup_rpo_seconds": (2, inf),
    "titanic_backup_wal_mebibytes": (64, inf),
    "titanic_database_instances": (1, inf),
    "titanic_preflight_lease_seconds": (1, inf),
    "titanic_target_deployer_days": (1, inf),
}
# How Ansible says that an option, one of its entries or one of its keys has the wrong type; the types in words.
WRONG_TYPE = re.compile(
    r"(argument|Elements value for option) '([^']+)' is of type \S+(?: found in '([^']+)')?"
    r".* unable to convert to (\w+):",
    re.DOTALL,
)
TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a mapping",
    "str": "text",
    "path": "a path",
}
# Whose keys are the secrets that there are: those that are generated, and those that a provider adds.
SECRETS = "titanic_secrets_values"
KEPT = (
    "database_owner_password",
    "database_app_password",
    "database_superuser_password",
    "pgadmin_password",
    "backup_key",
)
# How variables end that name something to read.
FILES = ("_csv", "_context", "image_dockerfile", "image_requirements")


def wrong_values(
    values: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]], elsewhere: Container[str] = ()
) -> list[str]:
    """One sentence for each value of the wrong type, outside its choices or its range.

    ``elsewhere`` names paths on another machine than this one, which the stage that reads them will look for.
    """
    found = unknown_keys(values, options)
    told = {problem.partition(":")[0] for problem in found}
    for name, value in values.items():
        if name in told:
            continue
        option = {key: part for key, part in options[name].items() if key != "required"}
        secret = bool(option.pop("no_log", False))
        problems = ArgumentSpecValidator({name: option}).validate({name: value}).error_messages
        if problems:
            kind = TYPES.get(str(option.get("type", "str")), "of another type")
            why = f"it must be {kind}" if secret else "; ".join(in_words(each, value) for each in problems)
            found.append(f"{name}: {why}")
        elif (
            name.endswith("_port")
            and option.get("type") == "int"
            and int(value) not in PORTS
            and value != option.get("default")
        ):
            found.append(f"{name}: {value} is not a port. Choose one from {PORTS.start} to {PORTS.stop - 1}.")
        elif name.endswith(FILES) and name not in elsewhere and (why := wrong_file(name, value)):
            found.append(f"{name}: {why}")
        elif option.get("type") == "path" and name.endswith("_directory") and not str(value).startswith(("/", "~")):
            found.append(f"{name}: {value} is not an absolute path. Begin it with /.")
        elif option.get("type") in {"int", "float"} and (why := out_of_range(float(value), LIMITS.get(name))):
            found.append(f"{name}: {value} {why}")
    return found


def in_words(problem: str, value: Any) -> str:
    """What Ansible says of an option's ``value``, for people; a wrong type as what it should be."""
    found = WRONG_TYPE.match(problem)
    if not found:
        return problem
    of, name, whole, kind = found.groups()
    wanted = TYPES.get(kind, f"of the type {kind}")
    if of != "argument":
        return f"each entry must be {wanted}"
    return f"{name} must be {wanted}" if whole else f"it must be {wanted}, not '{value}'"


def out_of_range(value: float, limits: tuple[float, float] | None) -> str:
    """Why a number is not what an option may be; empty if it is. Without limits it may be anything from 0 on."""
    least, most = limits or (0, inf)
    if least <= value <= most:
        return ""
    return f"is less than {least}" if most == inf else f"is not from {least} to {most}"


def wrong_file(name: str, value: object) -> str:
    """Why a path on this machine is not what this option needs; empty if it is."""
    path = Path(str(value)).expanduser()
    if not path.exists():
        return f"there is no {value} on this machine. Name one that is there."
    if name.endswith("_context"):
        return "" if path.is_dir() else f"{path} is no directory. Name the one that holds the project."
    return f"{path} is a directory. Name the file." if path.is_dir() else ""


def unknown_keys(values: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One sentence for each key that a dictionary's option does not have; of a secret only the key is told."""
    closed = {name: set(options[name].get("options", ())) for name in values}
    if SECRETS in values:
        generated = values.get("titanic_secrets_generated", options["titanic_secrets_generated"].get("default"))
        closed[SECRETS] = {*KEPT, *map(str, generated if isinstance(generated, list) else [])}
    return [
        f"{name}: there is no key {key}.{suggestion(str(key), sorted(keys))} The keys are {', '.join(sorted(keys))}."
        for name, keys in closed.items()
        if keys and isinstance(values[name], Mapping)
        for key in values[name]
        if key not in keys
    ]


def suggestion(name: str, known: list[str]) -> str:
    """The known name that is nearest to this one, as a sentence after a space; empty if none is near."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else ""
