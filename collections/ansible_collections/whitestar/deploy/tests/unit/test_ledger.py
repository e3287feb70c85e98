# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger chooses what a rollback goes back to, stays bounded, and spares what a rollback needs."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.release.ledger import (
    ENTRIES_KEPT,
    EVENTS_KEPT,
    Entry,
    Ledger,
    LiveSchema,
    RollbackRefusedError,
    images_in_use,
)
from ansible_collections.whitestar.deploy.tests.helpers import add_release, history


def go_back(ledger: Ledger, wanted: str = "", tolerates: str = "") -> Ledger:
    """Choose and record a rollback."""
    target = ledger.rollback_target(wanted, LiveSchema("", tolerates))
    return add_release(ledger, target.release, restores=target.number)


def test_entries_are_numbered_and_dated() -> None:
    ledger = history("a", "b")
    assert [entry.number for entry in ledger.entries] == [1, 2]
    at = datetime.fromisoformat(ledger.entries[0].at)
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60


def test_the_newest_success_serves() -> None:
    ledger = add_release(add_release(history("a", "b"), "c", "failed"), "d", "started")
    current = ledger.current()
    assert current is not None
    assert current.release == "b"
    assert Ledger().current() is None


def test_the_last_attempt_is_found_whatever_came_of_it() -> None:
    ledger = add_release(history("a"), "b", "failed")
    attempt = ledger.last_attempt("b")
    assert attempt is not None
    assert attempt.outcome == "failed"
    assert ledger.last_attempt("c") is None


def test_the_document_comes_back() -> None:
    ledger = go_back(add_release(history("a", "b"), "c", "failed"))
    assert Ledger.from_document(json.loads(json.dumps(ledger.document()))) == ledger


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format 2, this collection reads 1"):
        Ledger.from_document({"format": 2, "entries": []})


def test_previous_is_the_one_before() -> None:
    assert history("a", "b", "c").rollback_target("", LiveSchema()).release == "b"


def test_failed_releases_are_no_way_back() -> None:
    assert add_release(add_release(history("a"), "b", "failed"), "c").rollback_target("", LiveSchema()).release == "a"


def test_twice_goes_further_back_and_then_refuses() -> None:
    ledger = go_back(history("a", "b", "c"))
    assert ledger.rollback_target("", LiveSchema()).release == "a"
    ledger = go_back(ledger)
    with pytest.raises(RollbackRefusedError, match=r"oldest recorded one.*recorded: b, c"):
        ledger.rollback_target("", LiveSchema())


def test_a_deployment_after_a_rollback_can_be_undone() -> None:
    ledger = add_release(go_back(history("a", "b")), "c")
    assert ledger.rollback_target("", LiveSchema()).release == "a", (
        "what served before c, not what was left before that"
    )


def test_what_every_rollback_goes_back_to_is_never_pruned() -> None:
    ledger = history("good")
    for number in range(8):
        ledger = go_back(add_release(ledger, f"bad-{number}"))
    ledger = add_release(ledger, "next")
    assert ledger.rollback_target("", LiveSchema()).release == "good"
    assert ledger.releases_to_keep(2) == {"next", "good", "bad-7"}


def test_a_release_that_is_gone_is_passed_over() -> None:
    ledger = dataclasses.replace(history("a", "b", "c"), kept=frozenset({"a", "c"}))
    assert ledger.rollback_target("", LiveSchema()).release == "a"
    assert [entry.release for entry in ledger.eligible()] == ["a"]


def test_a_named_release_may_be_newer() -> None:
    ledger = go_back(go_back(history("a", "b", "c")))
    assert ledger.rollback_target("c", LiveSchema()).number == 3


@pytest.mark.parametrize("wanted", ["3f2a9c-1", "3f2a9c-1111", "3f2a9c-111"])
def test_the_start_of_an_id_is_enough(wanted: str) -> None:
    ledger = history("3f2a9c-1111", "3f2a9c-2222", "b")
    assert ledger.rollback_target(wanted, LiveSchema()).release == "3f2a9c-1111"


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("3f", r"'3f' fits more than one release. Recorded releases: 3f-2, 3f-1."),
        ("x", r"titanic_rollback_to: 'x' is not in the ledger. Recorded releases: 3f-2, 3f-1."),
        ("now", r"release now-1 serves already. Name another one."),
    ],
)
def test_a_wrong_name_is_refused(wanted: str, message: str) -> None:
    with pytest.raises(RollbackRefusedError, match=message):
        history("3f-1", "3f-2", "now-1").rollback_target(wanted, LiveSchema())


def test_nothing_deployed_is_refused() -> None:
    with pytest.raises(RollbackRefusedError, match="nothing has been deployed"):
        Ledger().rollback_target("", LiveSchema())


def test_a_release_that_the_live_schema_cannot_serve_is_refused() -> None:
    ledger = add_release(add_release(Ledger(), "old", schema_required="0001"), "new", schema_required="0003")
    assert ledger.rollback_target("", LiveSchema("", "0001")).release == "old"
    with pytest.raises(RollbackRefusedError, match=r"old needs schema 0001, but .* from 0002 on"):
        ledger.rollback_target("", LiveSchema("", "0002"))
    with pytest.raises(RollbackRefusedError, match=r"from 0002 on\. No other is recorded\. Correct the source"):
        ledger.rollback_target("old", LiveSchema("", "0002"))


def test_a_refusal_names_the_releases_that_the_live_schema_serves_and_no_other() -> None:
    ledger = Ledger()
    for release, required in (("old", "0001"), ("older", "0001"), ("fits", "0002"), ("new", "0003")):
        ledger = add_release(ledger, release, schema_required=required)
    with pytest.raises(RollbackRefusedError, match=r"from 0002 on\. Choose a newer release \(fits\)\.$"):
        ledger.rollback_target("older", LiveSchema("", "0002"))


def test_an_interrupted_entry_is_closed_by_the_next() -> None:
    ledger = add_release(add_release(history("a"), "b", "started"), "c")
    assert [entry.outcome for entry in ledger.entries] == ["succeeded", "interrupted", "succeeded"]
    assert "was cut off before" in ledger.entries[1].reason
    assert ledger.rollback_target("", LiveSchema()).release == "a"


def test_the_ledger_is_bounded() -> None:
    ledger = history(*(f"r{number}" for number in range(ENTRIES_KEPT + 20)))
    assert ENTRIES_KEPT == 100
    assert len(ledger.entries) == ENTRIES_KEPT
    assert ledger.entries[-1].number == ENTRIES_KEPT + 20
    assert [entry.number for entry in ledger.entries] == list(range(21, ENTRIES_KEPT + 21))


def test_the_release_that_serves_is_never_forgotten() -> None:
    ledger = history("good")
    for _ in range(ENTRIES_KEPT + 20):
        ledger = add_release(ledger, "bad", "failed")
    current = ledger.current()
    assert current is not None
    assert current.release == "good"
    assert len(ledger.entries) == ENTRIES_KEPT + 1


def test_what_the_serving_release_restored_is_never_forgotten() -> None:
    ledger = add_release(history("good"), "bad")
    for _ in range(ENTRIES_KEPT + 20):
        ledger = add_release(ledger, "good", restores=1)
    assert ledger.entries[0].number == 1
    assert len(ledger.entries) == ENTRIES_KEPT + 1
    assert ledger.fitting(LiveSchema()) == ledger.entries[0]


def test_pruning_spares_what_a_rollback_needs() -> None:
    ledger = add_release(history("a-1", "b-1", "c-1", "d-1"), "e-1", "failed")
    assert ledger.releases_to_keep(2) == {"d-1", "c-1", "b-1"}
    assert ledger.releases_to_keep(0) == {"d-1"}
    assert Ledger().releases_to_keep(5) == set()
    assert images_in_use(ledger.entries, ledger.releases_to_keep(1)) == {"d", "c"}


def test_pruning_after_a_rollback_spares_the_release_that_serves() -> None:
    ledger = go_back(history("a", "b", "c", "d"), "a")
    assert ledger.releases_to_keep(1) == {"a", "d"}


def test_an_entry_reads_as_a_line() -> None:
    entry = history("a").entries[0]
    assert str(entry) == f"1 {entry.at} a succeeded: deploy by alice@laptop"
    failed = add_release(Ledger(), "a", "started").finish(1, "failed", "no reason").entries[0]
    assert str(failed).endswith("deploy by alice@laptop: no reason")


def test_no_field_is_for_a_secret() -> None:
    names = set(Entry.__dataclass_fields__)
    assert names == {
        "number", "release", "image", "config", "schema_required", "schema_tolerates", "version", "by", "at", "why",
        "outcome", "reason", "restores", "point", "backup",
    }  # fmt: skip


def test_a_release_lives_with_a_schema_that_is_neither_too_old_nor_too_new_for_it() -> None:
    entry = history("a").entries[0]
    live = LiveSchema("0003", "0002")
    assert live.refuses(dataclasses.replace(entry, schema_required="0002")) == ""
    assert live.refuses(dataclasses.replace(entry, schema_required="0003")) == ""
    too_old = live.refuses(dataclasses.replace(entry, schema_required="0001"))
    assert too_old == "needs schema 0001, but the live schema serves releases from 0002 on"
    assert live.refuses(dataclasses.replace(entry, schema_required="0004")) == (
        "needs schema 0004, but the live schema is at 0003"
    )


def test_what_fits_a_schema_is_what_serves_or_else_the_newest_that_can() -> None:
    ledger = Ledger()
    for release, required in (("a", "0001"), ("b", "0002"), ("c", "0002"), ("d", "0003")):
        ledger = add_release(ledger, release, schema_required=required)
    found = {revision: ledger.fitting(LiveSchema(revision, "0001")) for revision in ("0001", "0002", "0003")}
    assert {revision: entry.release for revision, entry in found.items() if entry} == {
        "0001": "a", "0002": "c", "0003": "d",
    }  # fmt: skip
    assert ledger.fitting(LiveSchema("0000", "0000")) is None
    with pytest.raises(RollbackRefusedError, match=r"d needs .* is at 0002\. Choose an older release \(b, a\)\.$"):
        add_release(ledger, "c", restores=3).rollback_target("d", LiveSchema("0002", "0001"))


def test_events_are_kept_beside_the_releases_and_are_bounded() -> None:
    ledger = history("a").with_event("backup", label="1").with_event("drill", outcome="failed")
    ledger = ledger.with_event("drill", outcome="succeeded").with_event("drill", outcome="failed")
    again = Ledger.from_document(json.loads(json.dumps(ledger.document())))
    assert again == ledger
    drill = again.last_event("drill", outcome="succeeded")
    assert drill is not None
    assert again.last_event("drill") == again.events[-1]
    assert again.last_event("restore") is None
    for number in range(EVENTS_KEPT):
        ledger = ledger.with_event("backup", label=str(number))
    assert len(ledger.events) == EVENTS_KEPT
    assert ledger.last_event("drill") is None
    assert "events" not in history("a").document(), "where there are none the document is as it was"


def test_a_point_of_a_migration_is_the_next_release_s_alone() -> None:
    ledger = history("a").with_event("point", name="p", named=False)
    assert ledger.open_point() == ledger.events[0]
    assert ledger.with_event("point", name="mine", named=True).open_point() == ledger.events[0]
    assert add_release(ledger, "b", point="p").open_point() is None
    assert history("a").open_point() is None
