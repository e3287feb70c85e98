# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The release ledger: what was deployed, when, by whom, why and with what outcome; small, bounded, no secret."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

FORMAT = 1
ENTRIES_KEPT = 100
EVENTS_KEPT = 200
FAILURE_REPORTS_KEPT = 10
NOTHING_YET = "nothing has been deployed here yet"
# Where a run was to go on from there.
NOTHING_TO_GO_ON_FROM = f"{NOTHING_YET}. Run the whole site first, without --tags and --skip-tags."


class RollbackRefusedError(ValueError):
    """There is no release to go back to, or the live schema cannot serve it; the message says which and what to do."""


@dataclass(frozen=True)
class LiveSchema:
    """The schema that a database has: its revision, and the oldest release schema revision that it serves.

    Either is empty where it is not known.
    """

    revision: str = ""
    oldest_tolerated: str = ""

    @classmethod
    def of_check(cls, said: Any, complaint: str) -> LiveSchema:
        """As a release's command ``check`` tells it. Raises RollbackRefusedError if the database does not say."""
        schema = said.get("schema") if isinstance(said, dict) else None
        if not isinstance(schema, dict) or not schema.get("oldest_tolerated"):
            raise RollbackRefusedError(
                f"the live schema is not known, since the database does not answer ({complaint or said}). "
                f"Run the site first, which starts it."
            )
        return cls(str(schema.get("current") or ""), str(schema["oldest_tolerated"]))

    def refuses(self, entry: Entry) -> str:
        """Why a release cannot live with this schema; empty if it can. A rollback and a restore both ask this."""
        if self.oldest_tolerated and entry.schema_required < self.oldest_tolerated:
            since = f"the live schema serves releases from {self.oldest_tolerated} on"
            return f"needs schema {entry.schema_required}, but {since}"
        if self.revision and entry.schema_required > self.revision:
            return f"needs schema {entry.schema_required}, but the live schema is at {self.revision}"
        return ""


@dataclass(frozen=True)
class Entry:
    """One attempt to make a release serve.

    ``number`` counts up from 1. ``image`` is the tree hash or digest, ``config`` the hash of the workload's
    configuration. ``schema_required`` is the schema revision the release needs, ``schema_tolerates`` the oldest
    release schema revision that its own head schema can still serve. ``restores`` is the number of the entry
    that a rollback went back to. ``at`` is UTC in ISO 8601. ``point`` is the restore point of the moment before the
    release, and ``backup`` the newest backup then; empty where there were no backups.
    """

    number: int
    release: str
    image: str
    config: str
    schema_required: str
    schema_tolerates: str
    version: str
    by: str
    at: str
    why: str
    outcome: str
    reason: str = ""
    restores: int | None = None
    point: str = ""
    backup: str = ""

    @property
    def position(self) -> int:
        """The entry whose release this one made serve: itself, or the one that a rollback restored."""
        return self.restores or self.number

    def __str__(self) -> str:
        line = f"{self.number} {self.at} {self.release} {self.outcome}: {self.why} by {self.by}"
        return f"{line}: {self.reason}" if self.reason else line


@dataclass(frozen=True)
class Ledger:
    """All recorded entries, oldest first.

    ``kept`` names the releases that are still on the target, since only those can serve again; None if not known.
    ``events`` are backups, restore points, restores and drills, oldest first, each with ``kind`` and ``at``.
    """

    entries: tuple[Entry, ...] = ()
    kept: frozenset[str] | None = None
    events: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_document(cls, document: Mapping[str, Any], kept: Iterable[str] | None = None) -> Ledger:
        """Read what :meth:`document` wrote. Raises ValueError for another format."""
        if document.get("format", FORMAT) != FORMAT:
            raise ValueError(f"the ledger has format {document['format']}, this collection reads {FORMAT}. Upgrade it.")
        entries = tuple(Entry(**entry) for entry in document.get("entries", []))
        return cls(entries, None if kept is None else frozenset(kept), tuple(document.get("events", [])))

    def document(self) -> dict[str, Any]:
        """A JSON value: ``{"format": 1, "entries": [...]}``, and ``events`` where there are any."""
        events = {"events": [dict(event) for event in self.events]} if self.events else {}
        return {"format": FORMAT, "entries": [dataclasses.asdict(entry) for entry in self.entries], **events}

    def with_event(self, kind: str, **facts: Any) -> Ledger:
        """The same with one more event; ``at`` is now unless it is given. Only the newest 200 are kept."""
        event = {"kind": kind, "at": datetime.now(UTC).isoformat(timespec="milliseconds"), **facts}
        return dataclasses.replace(self, events=(*self.events, event)[-EVENTS_KEPT:])

    def last_event(self, kind: str, **facts: Any) -> Mapping[str, Any] | None:
        """The newest event of this kind that has these facts."""
        found = (event for event in reversed(self.events) if event["kind"] == kind)
        return next((event for event in found if all(event.get(key) == value for key, value in facts.items())), None)

    def open_point(self) -> Mapping[str, Any] | None:
        """The newest restore point, where no release has it yet: it was made before a migration for the next one."""
        point = self.last_event("point", named=False)
        return point if point and all(entry.point != point["name"] for entry in self.entries) else None

    def current(self) -> Entry | None:
        """The entry that serves: the newest that succeeded."""
        return next((entry for entry in reversed(self.entries) if entry.outcome == "succeeded"), None)

    def last_attempt(self, release: str) -> Entry | None:
        """The newest entry for ``release``, whatever its outcome."""
        return next((entry for entry in reversed(self.entries) if entry.release == release), None)

    def earlier_failure(self, release: str) -> str:
        """A warning when the last attempt to serve ``release`` did not succeed; empty otherwise."""
        last = self.last_attempt(release)
        if last is None or last.outcome == "succeeded":
            return ""
        if last.outcome != "failed":
            return f"release {release}: the run that deployed it at {last.at} was cut off. This run continues."
        return f"release {release}: it failed at {last.at}, and this run tries it again. The reason was: {last.reason}"

    def eligible(self) -> list[Entry]:
        """The deployment of each release that could serve again, the one that served last first, without the current.

        By when it served and not by when it was deployed: what a rollback went back to is what the next one wants.
        """
        current = self.current()
        deployments = {entry.number: entry for entry in self.entries if entry.restores is None}
        found: dict[str, Entry] = {}
        for entry in reversed(self.entries):
            deployment = deployments.get(entry.position)
            if entry.outcome == "succeeded" and deployment and self._is_kept(deployment):
                found.setdefault(deployment.release, deployment)
        return [entry for entry in found.values() if not current or entry.release != current.release]

    def rollback_to(self) -> str:
        """The release that a rollback goes back to unless another is named or the schema forbids it; empty if none."""
        return next((entry.release for entry in self.eligible()), "")

    def _is_kept(self, entry: Entry) -> bool:
        return self.kept is None or entry.release in self.kept

    def _before(self, current: Entry) -> Entry | None:
        """What served before the deployment that ``current`` made or restored: further back in time, never forward."""
        served = [entry for entry in self.entries if entry.outcome == "succeeded"]
        position = current.position
        while earlier := [entry for entry in served if entry.number < position]:
            position = earlier[-1].position
            found = next((entry for entry in served if entry.number == position), None)
            if found and found.release != current.release and self._is_kept(found):
                return found
        return None

    def rollback_target(self, wanted: str, live: LiveSchema) -> Entry:
        """The entry to go back to: ``wanted`` (a release id or a unique start of one), or the one before the current.

        Going back twice goes further back, never forward. Raises RollbackRefusedError.
        """
        current = self.current()
        if current is None:
            raise RollbackRefusedError(f"{NOTHING_YET}, so there is nothing to roll back")
        candidates = self.eligible()
        known = ", ".join(entry.release for entry in candidates) or "none"
        if wanted:
            matches = [entry for entry in candidates if entry.release.startswith(wanted)]
            if current.release.startswith(wanted) and not matches:
                raise RollbackRefusedError(f"release {current.release} serves already. Name another one.")
            if len(matches) != 1:
                what = "is not in the ledger" if not matches else "fits more than one release"
                raise RollbackRefusedError(f"titanic_rollback_to: '{wanted}' {what}. Recorded releases: {known}.")
            target = matches[0]
        else:
            before = self._before(current)
            if before is None:
                raise RollbackRefusedError(
                    f"release {current.release} is the oldest recorded one. "
                    f"Name one with -e titanic_rollback_to=RELEASE (recorded: {known}), or deploy the source again."
                )
            target = before
        if why := live.refuses(target):
            served = ", ".join(entry.release for entry in candidates if not live.refuses(entry))
            older = live.revision and target.schema_required > live.revision
            choice = f"Choose an older release ({served})." if older else f"Choose a newer release ({served})."
            remedy = choice if served else "No other is recorded. Correct the source."
            raise RollbackRefusedError(f"release {target.release} {why}. {remedy}")
        return target

    def fitting(self, live: LiveSchema) -> Entry | None:
        """The deployment that serves with this schema: the current one if it can, or else the newest one that can."""
        current = self.current()
        deployed = [entry for entry in self.entries if current and entry.number == current.position]
        return next((entry for entry in [*deployed, *self.eligible()] if not live.refuses(entry)), None)

    def add(self, **facts: Any) -> tuple[Ledger, Entry]:
        """A ledger with one more entry, ``number`` and ``at`` filled in; entries still "started" become "interrupted".

        Only the newest 100 entries are kept, beside the one that serves and the one that this one restored.
        """
        number = self.entries[-1].number + 1 if self.entries else 1
        entry = Entry(number=number, at=datetime.now(UTC).isoformat(timespec="seconds"), **facts)
        closed = self.close_interrupted().entries
        oldest = len(closed) - ENTRIES_KEPT
        current = self.current()
        spared = {current.number, current.position} if current else set()
        rest = [old for index, old in enumerate(closed) if index > oldest or old.number in spared]
        return dataclasses.replace(self, entries=(*rest, entry)), entry

    def finish(self, number: int, outcome: str, reason: str = "") -> Ledger:
        """The same with the outcome of one entry set."""
        return self._with(lambda entry: entry.number == number, outcome, reason)

    def close_interrupted(self) -> Ledger:
        """The same with every entry that never came to an end named so."""
        return self._with(
            lambda entry: entry.outcome == "started", "interrupted", "the run was cut off before the release took over"
        )

    def _with(self, chosen: Callable[[Entry], bool], outcome: str, reason: str) -> Ledger:
        entries = [
            dataclasses.replace(entry, outcome=outcome, reason=reason) if chosen(entry) else entry
            for entry in self.entries
        ]
        return dataclasses.replace(self, entries=tuple(entries))

    def releases_to_keep(self, keep: int) -> set[str]:
        """Releases that pruning must spare: the current one and the ``keep`` newest that a rollback could go to."""
        current = self.current()
        spared = {entry.release for entry in self.eligible()[:keep]}
        return spared | ({current.release} if current else set())


def images_in_use(entries: Iterable[Entry], releases: set[str]) -> set[str]:
    """The images that these releases need."""
    return {entry.image for entry in entries if entry.release in releases}


class Records(Protocol):
    """Where a target keeps its ledger and the evidence of failed releases."""

    def ledger(self) -> Ledger:
        """The ledger, empty before the first release."""

    def write_ledger(self, ledger: Ledger) -> None:
        """Replace the ledger."""

    def secrets(self) -> Iterable[tuple[str, str]]:
        """Every secret of the target with its name, so that none gets into what is written."""

    def store_failure_report(self, name: str, text: str) -> str:
        """Write the evidence of a failed release, whose words have been looked through, and say where it is."""

    def exclusively(self) -> AbstractContextManager[None]:
        """Be the only step at work on the target."""
