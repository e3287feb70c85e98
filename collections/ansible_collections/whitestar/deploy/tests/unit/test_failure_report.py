# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Failure reports: one file for each failed release, no secret in it, and never more than a few."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State, records_of
from ansible_collections.whitestar.deploy.plugins.module_utils.release.failure_report import (
    REASON_LENGTH,
    readable,
    reason_of,
    record_failure,
    redacted,
    write_failure_report,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import FAILURE_REPORTS_KEPT, Ledger

FACTS = {"config": "c", "schema_required": "1", "schema_tolerates": "1", "version": "1", "by": "a", "why": "deploy"}


def test_secrets_are_taken_out_line_by_line(tmp_path: Path) -> None:
    state = State(tmp_path)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "password").write_text("open sesame")
    (tmp_path / "secrets" / "write_tokens").write_text("first-token\nsecond-token\n")
    (tmp_path / "secrets" / "short").write_text("to")
    (tmp_path / "secrets" / "tls").mkdir()
    (tmp_path / "secrets" / "tls" / "key").write_text("-----BEGIN PRIVATE KEY-----\nkey-of-the-door\n")
    _, entry = Ledger().add(release="img-1", image="img", outcome="failed", **FACTS)
    evidence = {"last output": "told second-token to open sesame by key-of-the-door"}
    where = write_failure_report(state, entry, "refused first-token", evidence, {"a": 1}, {"a": "open sesame"})
    text = Path(where).read_text()
    assert "told [write_tokens] to [password] by [key]" in text
    assert "refused [write_tokens]" in text
    assert '-  "a": 1' in text
    assert '+  "a": "[password]"' in text
    assert not any(secret in text for secret in ("open sesame", "first-token", "second-token", "key-of-the-door"))


def test_secrets_are_taken_out_however_they_are_quoted(tmp_path: Path) -> None:
    state, secret = State(tmp_path), "planted-'\"\\ $%&é"
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "password").write_text(secret)
    (tmp_path / "secrets" / "a_longer_one").write_text(f"{secret}-and-more")
    for form in (secret, json.dumps(secret), repr(secret), quote(secret, safe=""), json.dumps({"key": [secret]})):
        text = redacted(state, f"({form}) ({form.replace(secret, f'{secret}-and-more')})")
        assert "planted" not in text, form
        assert "[password]" in text, form
    assert redacted(state, f"{secret}-and-more {secret}") == "[a_longer_one] [password]"


def test_an_output_of_log_lines_is_shown_as_a_person_would_read_it() -> None:
    started = {"level": "info", "message": "Starting"}
    died = {"level": "error", "message": "Exception in worker", "exception": "Traceback\n  File x\nKeyError: 'y'\n"}
    output = "\n".join(["plain", json.dumps(started), json.dumps(died), '{"no": "log"}', json.dumps(died), "{cut"])
    assert readable(output) == 'plain\nerror: Exception in worker: KeyError: \'y\'\n{"no": "log"}\n{cut'
    assert readable(json.dumps(started)) == "info: Starting", "there is nothing else"
    assert readable("a\n\nb") == "a\n\nb"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("", ""),
        ("it is late\nand more", "it is late"),
        ("it ended; its last output:\nTraceback\nKeyError: 'x'\n\n", "it ended: KeyError: 'x'"),
        ("it ended; its last output:\n", "it ended"),
        (f"it ended; its last output:\n{'x' * 999}", f"it ended: {'x' * (REASON_LENGTH - 10)}"),
    ],
)
def test_a_reason_is_one_line_with_what_was_said_last(message: str, reason: str) -> None:
    assert reason_of(message) == reason


def test_a_failure_before_the_start_is_recorded_with_its_evidence(tmp_path: Path) -> None:
    state = State(tmp_path)
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "password").write_text("open sesame")
    failure = {"state_directory": str(tmp_path), "by": "alice@laptop"}
    description = {"version": "1.2.3", "schema": {"required": "0004", "oldest_tolerated": "0003"}}
    image = {"identity": "aaaaaaaaaaaa", "description": description}
    said = {"last output": "ERROR: open sesame"}
    message = record_failure(records_of, failure, image, "it failed: open sesame\nmore", said, {"image": "x"})
    (entry,) = state.ledger().entries
    assert (entry.release, entry.image, entry.outcome, entry.by) == ("aaaaaaaaaaaa",) * 2 + ("failed", "alice@laptop")
    assert (entry.version, entry.schema_required, entry.schema_tolerates) == ("1.2.3", "0004", "0003")
    assert entry.reason == "it failed: [password]"
    path = state.failure_reports / "000001-aaaaaaaaaaaa.txt"
    assert message == f"it failed: [password]\nmore\nevidence: {path}"
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text()
    for words in (
        "ERROR: [password]",
        "what serves ==\nnothing",
        '+  "image": "x"',
        "aaaaaaaaaaaa failed: deploy by alice",
    ):
        assert words in text
    # One that was never built is known by its name alone, and the one that serves stays the one that does.
    ledger, _ = state.ledger().add(release="img-1", image="img", outcome="succeeded", **FACTS)
    state.write_ledger(ledger)
    message = record_failure(records_of, failure, {"identity": "bbbbbbbbbbbb"}, "not built", {}, {})
    assert "000003-bbbbbbbbbbbb.txt" in message
    current = state.ledger().current()
    assert current
    assert current.release == "img-1"
    assert str(current) in (state.failure_reports / "000003-bbbbbbbbbbbb.txt").read_text()


def test_without_a_place_for_it_a_failure_is_only_told() -> None:
    assert record_failure(records_of, None, {"identity": "a"}, "why", {}, {}) == "why"


def test_evidence_that_cannot_be_written_does_not_hide_the_failure(tmp_path: Path) -> None:
    (tmp_path / "ledger.json").write_text("{")
    failure = {"state_directory": str(tmp_path), "by": "a"}
    message = record_failure(records_of, failure, {"identity": "a"}, "why", {}, {})
    assert message.startswith("why\nno evidence could be written: ")
    assert "ledger.json is not readable as JSON" in message


def test_the_newest_are_kept(tmp_path: Path) -> None:
    ledger = Ledger()
    for _ in range(FAILURE_REPORTS_KEPT + 3):
        ledger, entry = ledger.add(release="img-1", image="img", outcome="failed", **FACTS)
        newest = write_failure_report(State(tmp_path), entry, "", {}, {}, {})
    kept = sorted(State(tmp_path).failure_reports.iterdir())
    assert len(kept) == FAILURE_REPORTS_KEPT
    assert str(kept[-1]) == newest
