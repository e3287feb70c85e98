# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pgBackRest as it is told things and tells them: its configuration, its list of backups, and its complaints."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.release.backup import (
    POINT,
    SCHEDULES,
    SHORTEST_KEY,
    Backup,
    BackupError,
    Target,
    lsn_of,
    stamp,
)

# Where things are in each container of the image (files/image of the role).
CONFIGURATION = "/etc/titanic-backup"
NOTES = "/var/lib/titanic-backup"
REPOSITORIES = "/var/lib/titanic-repository"
DATA = "/var/lib/postgresql/data"
SOCKETS = "/var/run/postgresql"
SEGMENT_BYTES = 16 * 2**20
DAY = 86400
VARIABLE = "titanic_backup_repositories"
KEY_VARIABLE = "titanic_secrets_values"
KINDS = {"full": "full", "diff": "incremental", "incr": "incremental"}
# What pgBackRest says, the problem that it is to whoever reads it, and the remedy; the first that fits counts.
COMPLAINTS = (
    (
        "RequestTimeTooSkewed|request time.*too",
        "titanic_backup_repositories: the clock of the target is off",
        "Set it.",
    ),
    (
        "NoSuchBucket",
        "titanic_backup_repositories: there is no such bucket",
        "Make it, or name the right one.",
    ),
    (
        "SignatureDoesNotMatch|InvalidAccessKeyId|AccessDenied|Forbidden|\\(403\\)",
        "titanic_secrets_values: the store does not take backup_s3_key and backup_s3_key_secret for this bucket",
        "Give those of an account that may read, write and list the bucket.",
    ),
    (
        "unable to find hostname",
        "titanic_backup_repositories: the store's certificate has another name than endpoint",
        "Write endpoint as the certificate names it.",
    ),
    (
        "unable to verify certificate|certificate verify failed|unable to set user-defined CA",
        "titanic_backup_repositories: the store's certificate is signed by nobody who is trusted",
        "Name its authority.",
    ),
    (
        "do not match the database|version .* do(es)? not match|system-id .* do(es)? not match|\\[0(28|51)\\]",
        "titanic_backup_repositories: the repository holds another database's backups",
        "Name another place or another titanic_backup_site, or restore that database here.",
    ),
    (
        "unable to flush|bad decrypt|CryptoError|cipher header invalid|FormatError|invalid checksum, actual|\\[095\\]",
        "titanic_secrets_values: backup_key is not the key that the repository was made with, or that is damaged",
        "Give the right key.",
    ),
    ("No space left", "titanic_backup_repositories: the disk of the repository is full", "Free some."),
    (
        "Permission denied|\\[13\\]|Read-only file system",
        "titanic_backup_repositories: the repository may not be written to by user id 999",
        "Grant that right, or name another directory.",
    ),
    ("unable to acquire lock", "another backup is being made", "Try again when that has ended."),
    (
        "HostConnectError|unable to connect|unable to get address|timeout|Connection refused|\\[049\\]",
        "titanic_backup_repositories: the store does not answer",
        "See that it runs, and that the target reaches it.",
    ),
)


def explained(said: str) -> str:
    """What pgBackRest complained of: the variable, the problem, its own last words, and the remedy."""
    lines = [line for line in said.splitlines() if line.strip()]
    own = re.sub(r"^([-:. 0-9]*P\d+ +)?", "", " ".join(line.strip() for line in lines[-4:]))[-600:]
    own = "".join(letter if letter.isprintable() else "?" for letter in own.replace("\ufffd", "?"))
    for pattern, problem, remedy in COMPLAINTS:
        if re.search(pattern, said, re.IGNORECASE):
            return f"{problem} ({own}). {remedy}"
    return own or "it said nothing"


def files(settings: Mapping[str, Any]) -> dict[str, str]:
    """The files below :data:`CONFIGURATION` by name, none of which is a secret.

    ``settings`` has ``site``, ``repositories`` (as titanic_backup_repositories), ``compression``, ``schedule``,
    ``full_days``, ``keep_full``, ``keep_days`` and ``wal_mebibytes``. Raises BackupError for a name that cannot be.
    """
    site = str(settings["site"])
    if not POINT.fullmatch(site):
        raise BackupError(f"titanic_backup_site: '{site}' is no name. Use letters, digits, '.', _ and -.")
    places = list(enumerate(settings["repositories"], 1))
    lines = ["[global]", "log-level-console=off", "log-level-stderr=warn", "log-level-file=off", "start-fast=y"]
    lines += [
        "process-max=2",
        "io-timeout=20",
        f"compress-type={'zst' if settings['compression'] == 'zstd' else 'none'}",
    ]
    for number, place in places:
        lines += [f"repo{number}-{line}" for line in _repository(number, place)]
    lines += ["", "[global:backup]", "expire-auto=n", "", f"[{site}]", f"pg1-path={DATA}", f"pg1-socket-path={SOCKETS}"]
    numbers = " ".join(str(number) for number, _ in places)
    stored = " ".join(str(number) for number, place in places if place["type"] == "s3")
    schedule = {
        "site": site,
        "repositories": f"'{numbers}'",
        "s3": f"'{stored}'",
        "interval": int(SCHEDULES[settings["schedule"]].total_seconds()),
        "full_seconds": int(float(settings["full_days"]) * DAY),
        "keep_full": int(settings["keep_full"]),
        "keep_seconds": int(float(settings["keep_days"]) * DAY),
        "wal_mebibytes": int(settings["wal_mebibytes"]),
    }
    found = {
        "pgbackrest.conf": "\n".join([*lines, ""]),
        "schedule": "".join(f"{name}={value}\n" for name, value in schedule.items()),
    }
    return found | {f"authority-{number}": place["authority"] for number, place in places if place.get("authority")}


def _repository(number: int, place: Mapping[str, Any]) -> list[str]:
    # Count and age together are the schedule's own (see titanic-pgbackrest); pgBackRest warns where it is told of none.
    lines = ["cipher-type=aes-256-cbc", "bundle=y", "block=y", "retention-full-type=count", "retention-full=9999999"]
    if place["type"] != "s3":
        return [*lines, f"path={REPOSITORIES}/{number}"]
    lines += ["type=s3", f"path=/{str(place.get('prefix') or '').strip('/')}", f"s3-bucket={place['bucket']}"]
    lines += [f"s3-endpoint={place['endpoint']}", f"s3-region={place.get('region') or 'us-east-1'}"]
    lines += [f"s3-uri-style={place.get('uri_style') or 'host'}"]
    return lines + ([f"storage-ca-file={CONFIGURATION}/authority-{number}"] if place.get("authority") else [])


def key_problem(secret: str) -> str:
    """Why this cannot be the key of backups, in one sentence; empty if it can."""
    if len(secret) < SHORTEST_KEY:
        what = f"backup_key has {len(secret)} characters, {SHORTEST_KEY} are needed"
        return f"{KEY_VARIABLE}: {what}. Give a random one."
    if not re.fullmatch(r"[!-~]+", secret):
        return f"{KEY_VARIABLE}: backup_key has a space or what is not ASCII. Give a random one without."
    return ""


def listed(told: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, Backup]]:
    """The complete backups of each repository by label, oldest first, of what the command ``info`` told as JSON."""
    found: dict[int, dict[str, Backup]] = {}
    for stanza in told:
        systems = {(each["repo-key"], each["id"]): each for each in stanza.get("db", [])}
        for number in (each["key"] for each in stanza.get("repo", [])):
            found.setdefault(int(number), {})
        for each in sorted(stanza.get("backup", []), key=lambda each: str(each["label"])):
            number = int(each["database"]["repo-key"])
            system = systems.get((number, each["database"]["id"]), {})
            if not each.get("error"):
                found.setdefault(number, {})[each["label"]] = _backup(each, system)
    return found


def _backup(each: Mapping[str, Any], system: Mapping[str, Any]) -> Backup:
    times = {key: datetime.fromtimestamp(each["timestamp"][key], UTC) for key in ("start", "stop")}
    size = each["info"]
    return Backup(
        label=each["label"],
        kind=KINDS[each["type"]],
        prior=each.get("prior") or "",
        started=stamp(times["start"]),
        ended=stamp(times["stop"]),
        timeline=int(each["archive"]["start"][:8], 16),
        start_lsn=lsn_of(each["lsn"]["start"]),
        stop_lsn=lsn_of(each["lsn"]["stop"]),
        segment_bytes=SEGMENT_BYTES,
        bytes=size["size"],
        sealed=size["repository"].get("delta") or 0,
        major=int(str(system.get("version", "0")).partition(".")[0]),
        system=str(system.get("system-id", "")),
    )


def problems(told: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence for each repository that cannot be read; one that is still empty is no problem."""
    # 1: no stanza yet, 2: no backup yet (doc of pgBackRest's command info)
    return [
        f"repository {repository['key']}: {explained(str(repository['status']['message']))}"
        for stanza in told
        for repository in stanza.get("repo", [])
        if repository["status"]["code"] not in (0, 1, 2)
    ]


def empty(told: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a repository has no stanza of this site yet."""
    states = [each["status"]["code"] for stanza in told for each in stanza.get("repo", [])]
    return not states or any(code == 1 for code in states)


def wrong_database(told: Sequence[Mapping[str, Any]], system: str, major: int) -> str:
    """Why a repository is not this database's, in one sentence; empty if it is. ``system`` may be empty for any."""
    for stanza in told:
        newest = {each["repo-key"]: each for each in sorted(stanza.get("db", []), key=lambda each: int(each["id"]))}
        for number, each in newest.items():
            if int(str(each["version"]).partition(".")[0]) != major:
                what = f"the backups in repository {number} are PostgreSQL {each['version']}'s, the image is {major}"
                return f"titanic_database_image: {what}. Set it to PostgreSQL {each['version']}, or name a new place."
            if system and str(each["system-id"]) != system:
                what = f"repository {number} holds another database (system {each['system-id']}, this one is {system})"
                remedy = f"take that one over (--tags restore -e titanic_restore_system={each['system-id']})"
                return f"{VARIABLE}: {what}. Name another place or titanic_backup_site, or {remedy}."
    return ""


def restore_words(target: Target, label: str, number: int, timeline: int) -> list[str]:
    """The command that restores this backup up to this moment."""
    words = [f"--repo={number}", f"--set={label}", f"--target-timeline={timeline}"]
    words += ['--recovery-option=restore_command=titanic-pgbackrest fetch %f "%p"']
    if target.time is not None:
        at = target.time.strftime("%Y-%m-%d %H:%M:%S.%f+00")
        words += ["--type=time", f"--target={at}", "--target-action=promote"]
    elif target.point:
        words += ["--type=name", f"--target={target.point}", "--target-action=promote"]
    else:
        words += ["--type=default"]
    return [*words, "restore"]


def verify_problem(said: str) -> str:
    """What the command ``verify`` found, in one sentence; empty if all is whole."""
    # Of a manifest that is missing it says so, and that all is well.
    if re.search(r"^\s*status: ok", said, re.MULTILINE) and not re.search(r"status: (error|invalid|manifest)", said):
        return ""
    found = [line.strip() for line in said.splitlines() if re.search(r"missing|invalid|mismatch|other|error", line)]
    return f"a repository is damaged: {'; '.join(found[:6]) or said.strip()[-500:]}"


def archive_id(told: Sequence[Mapping[str, Any]], number: int, system: str) -> str:
    """Under which name a repository has the WAL of a database, such as ``17-1``; empty if it has none."""
    for stanza in told:
        ours = {
            each["id"]
            for each in stanza.get("db", [])
            if each["repo-key"] == number and str(each["system-id"]) == system
        }
        for each in stanza.get("archive", []):
            if each["database"]["repo-key"] == number and each["database"]["id"] in ours:
                return str(each["id"])
    return ""


def segments(said: str) -> set[str]:
    """The files of WAL in what the command ``repo-ls`` printed of an archive."""
    return set(re.findall(r"^(?:.*/)?([0-9A-F]{24})-[0-9a-f]{40}", said, re.MULTILINE))


def newest_timeline(told: Sequence[Mapping[str, Any]]) -> int:
    """That of the newest WAL which a repository has, which is the one that served."""
    names = [str(each["max"]) for stanza in told for each in stanza.get("archive", []) if each.get("max")]
    return max((int(name[:8], 16) for name in names), default=1)
