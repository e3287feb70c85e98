# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time holds the lock, and the dead hold it no longer than they must."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Process
from ansible_collections.whitestar.deploy.plugins.module_utils.release.lock import Lock, LockedError, Owner, in_words

HERE = socket.gethostname()


def this_process() -> Owner:
    process = Process.of(os.getpid())
    assert process is not None
    return Owner(HERE, "alice", process.pid, process.started)


def dead_process() -> Owner:
    child = subprocess.Popen(["sleep", "60"])
    process = Process.of(child.pid)
    assert process is not None
    child.kill()
    child.wait()
    return Owner(HERE, "bob", process.pid, process.started)


ELSEWHERE = Owner("another.example", "carol", 4711, 12)


@pytest.fixture
def lock(tmp_path: Path) -> Lock:
    return Lock(tmp_path / "lock.json")


def test_a_free_lock_is_taken_and_given_back(lock: Lock) -> None:
    me = this_process()
    assert lock.holder() is None
    assert lock.acquire(me, 60) is None
    holder = lock.holder()
    assert holder is not None
    assert holder.same_run(me)
    assert lock.release(me)
    assert lock.holder() is None
    assert not lock.release(me)


def test_a_second_owner_is_refused_and_told_whose_it_is(lock: Lock) -> None:
    lock.acquire(this_process(), 60)
    began = time.monotonic()
    with pytest.raises(LockedError, match=rf"alice@{HERE} \(process {os.getpid()}, since \d\d:\d\d:\d\d\)"):
        lock.acquire(ELSEWHERE, 60)
    assert time.monotonic() - began < 30


def test_the_owner_may_take_it_again(lock: Lock) -> None:
    me = this_process()
    lock.acquire(me, 10)
    assert lock.acquire(me, 1000) is None
    holder = lock.holder()
    assert holder is not None
    assert holder.until > time.time() + 900


def test_a_dead_owner_of_this_machine_is_followed_at_once(lock: Lock) -> None:
    dead = dead_process()
    lock.acquire(dead, 3600)
    taken_from = lock.acquire(this_process(), 60)
    assert taken_from is not None
    assert taken_from.same_run(dead)


def test_a_dead_owner_is_said_to_be_dead(lock: Lock) -> None:
    assert in_words(lock.holder()) == "free"
    lock.acquire(dead_process(), 3600)
    assert in_words(lock.holder()).endswith("which has ended. The next run takes it over")
    lock.acquire(this_process(), 3600)
    assert "has ended" not in in_words(lock.holder())


def test_a_reused_pid_is_not_the_owner(lock: Lock) -> None:
    me = this_process()
    lock.acquire(Owner(HERE, "bob", me.pid, me.started - 1), 3600)
    assert lock.acquire(me, 60) is not None


def test_an_owner_elsewhere_keeps_it_until_the_lease_ends(lock: Lock) -> None:
    lock.acquire(ELSEWHERE, 3600)
    with pytest.raises(LockedError, match=r"carol@another\.example .* Its lease ends by itself 3[56]\d\d s from now"):
        lock.acquire(this_process(), 60)
    lock.acquire(ELSEWHERE, -1)
    assert lock.acquire(this_process(), 60) is not None


def test_a_living_owner_of_this_machine_keeps_it_after_its_lease(lock: Lock) -> None:
    lock.acquire(this_process(), -1)
    with pytest.raises(LockedError):
        lock.acquire(ELSEWHERE, 60)


def test_a_stranger_cannot_give_it_back(lock: Lock) -> None:
    lock.acquire(this_process(), 60)
    assert not lock.release(ELSEWHERE)
    assert lock.holder() is not None


@pytest.mark.parametrize("content", ['{"host": "h", "shape": "unknown"}', "{"])
def test_a_file_that_is_no_lock_of_ours_is_named(lock: Lock, content: str) -> None:
    lock.path.write_text(content)
    with pytest.raises(ValueError, match=r"lock\.json is not .*[Mm]ove it away"):
        lock.acquire(this_process(), 60)
