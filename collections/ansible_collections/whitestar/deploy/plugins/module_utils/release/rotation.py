# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What rotations of secrets have come to on a target: which login the service has, and what has not ended yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.difference import Difference

KINDS = ("database", "superuser", "tokens", "tls")
# The secret that each login of the service has one of its own of, and what a release calls it.
PASSWORD, PASSWORD_OF_RELEASE = "database_app_password", "database_password"
TOKENS = "write_tokens"
# The secrets of who may more than the service.
SUPERUSER = ("database_superuser_password", "database_owner_password")
# What the role that serves and the file with its password end with, of the logins that take turns. The role itself was
# the one login before the first rotation, and is the group of both since.
LOGINS = ("_a", "_b")
USER = "TITANIC_DATABASE_USER"
# How the service reads a write token that ends at a moment: service/src/titanic_api/config.py.
UNTIL = " until "
REMEDY = "Run the site (make up) or --tags rotate to end it."
NO_CERTIFICATE = "titanic_secrets_tls: these certificates are the ones in use. Give the new ones."


@dataclass(frozen=True)
class Rotation:
    """The login that the database lets the service in with, the one that releases are to have, and what is unfinished.

    Logins by what their names end with, as :data:`LOGINS` has it; empty before the first rotation. The two differ from
    when the new password is kept until the database knows it. ``unfinished`` tells of each kind since when and by whom.
    """

    login: str = ""
    wanted: str = ""
    unfinished: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_document(cls, document: Mapping[str, Any] | None) -> Rotation:
        """From what :meth:`document` gave. Raises TypeError for what is none."""
        return cls(**document) if document else cls()

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    def begun(self, kinds: Sequence[str], by: str) -> Rotation:
        """With these begun that are not yet; a login's with the next login wanted."""
        since = f"since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}, by {by}"
        new = {kind: since for kind in kinds if kind not in self.unfinished}
        wanted = LOGINS[self.login == LOGINS[0]] if "database" in new else self.wanted
        return replace(self, wanted=wanted, unfinished={**self.unfinished, **new})

    def reached(self) -> Rotation:
        """With the wanted login known to the database."""
        return replace(self, login=self.wanted)

    def finished(self) -> Rotation:
        """With nothing left to do, unless the database does not know the wanted login yet."""
        left = {kind: since for kind, since in self.unfinished.items() if kind == "database"}
        return replace(self, unfinished={} if self.login == self.wanted else left)

    @property
    def logins(self) -> list[str]:
        """Those that the database must know, the wanted one last."""
        return list(dict.fromkeys((self.login, self.wanted)))

    @property
    def retired(self) -> list[str]:
        """Those whose login is to be taken away: none while a release may have one of them."""
        idle = self.wanted == self.login and self.login and "database" not in self.unfinished
        return self.unused if idle else []

    @property
    def unused(self) -> list[str]:
        """Those that no release has, whatever a database from elsewhere knows of them."""
        return [login for login in ("", *LOGINS) if login not in self.logins]

    def name_of(self, secret: str) -> str:
        """What a secret is kept as: of the service's password that of the wanted login."""
        return f"{secret}{self.wanted}" if secret == PASSWORD else secret

    def differences(self) -> list[Difference]:
        """As drift tells of what is half done."""
        return [Difference("rotation", kind, said=f"is half done {since}") for kind, since in self.unfinished.items()]

    def __str__(self) -> str:
        """In one line, for people."""
        parts = [f"{kind} {since}" for kind, since in self.unfinished.items()]
        return f"half done: {'; '.join(parts)}. {REMEDY}" if parts else "none"


def finish_steps(rotation: Rotation) -> list[str]:
    """What the end of these rotations is called, for people."""
    left = rotation.finished().unfinished
    return [f"finish the rotation of {kind}" for kind in rotation.unfinished if kind not in left]


def kinds_of(given: object) -> list[str]:
    """Kinds as a list, of one or of text as a command line has it: ``[database,tls]``, ``database, tls``."""
    parts = given.strip().strip("[]").split(",") if isinstance(given, str) else given
    return [str(part).strip(" '\"") for part in parts if str(part).strip()] if isinstance(parts, list | tuple) else []


def with_login(workload: dict[str, Any], login: str) -> dict[str, Any]:
    """A workload as it is recorded, for a host, with the login's own role and password file."""
    files = workload.get("secret_files", {})
    if not login or PASSWORD_OF_RELEASE not in files:
        return workload
    path = files[PASSWORD_OF_RELEASE]
    # The name too: on Compose both colours' secrets stand in one list.
    kept = {name: file for name, file in files.items() if name != PASSWORD_OF_RELEASE}
    environment = {
        name: f"{value}{login}" if name == USER or value == path else value
        for name, value in workload["environment"].items()
    }
    secret_files = {**kept, f"{PASSWORD_OF_RELEASE}{login}": f"{path}{login}"}
    return workload | {"environment": environment, "secret_files": secret_files}


def tokens_text(kept: str, given: str, overlap_seconds: float | None) -> str:
    """The write tokens to keep, one a line: those given, and of those kept before what is good for a time still.

    Without an overlap others than before take their place at once.
    """
    new, before = lines(given), lines(kept)
    lasting = [line for line in before if UNTIL not in line]
    if set(lasting) == set(new):
        return kept
    if overlap_seconds is None:
        return given
    now = datetime.now(UTC)
    ends = f"{now + timedelta(seconds=overlap_seconds):%Y-%m-%dT%H:%M:%SZ}"
    ending = [line for line in before if UNTIL in line and line.partition(UNTIL)[2] > f"{now:%Y-%m-%dT%H:%M:%SZ}"]
    old = [*(f"{line}{UNTIL}{ends}" for line in lasting), *ending]
    return "\n".join([*new, *(line for line in old if line.partition(UNTIL)[0] not in new)])


def lines(text: str) -> list[str]:
    """The lines of a file with tokens."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def renewed_by(kinds: Sequence[str]) -> list[str]:
    """The secrets that rotations of these kinds give new values, generated unless given."""
    names = {"database": (PASSWORD,), "superuser": SUPERUSER}
    return [name for kind in kinds for name in names.get(kind, ())]


def nothing_new(kinds: Sequence[str], given: Mapping[str, object], kept: Mapping[str, str]) -> list[str]:
    """One sentence for each secret that is to be rotated and is given as it is.

    ``kept`` has the secrets by name, the password of the login that the service has now under the name of all.
    """
    remedy = "Give a new one, or none to have one generated."
    found = [
        f"titanic_secrets_values: {name} is the one in use. {remedy}"
        for name in renewed_by(kinds)
        if name in given and given[name] == kept.get(name)
    ]
    if "tokens" in kinds:
        before = {line for line in lines(kept.get(TOKENS, "")) if UNTIL not in line}
        if before == set(lines(str(given.get(TOKENS, "")))):
            found.append("titanic_api_write_tokens: these are the ones in use. Give the new ones.")
    return found
