# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run at a time holds the lock of a namespace, and the dead hold it no longer than they must."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Process
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.client import KubernetesClient
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.lease import (
    API,
    KIND,
    NAME,
    OWNER,
    ClusterLock,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.kubernetes.objects import Object
from ansible_collections.whitestar.deploy.plugins.module_utils.release.lock import LockedError, Owner
from ansible_collections.whitestar.deploy.tests.cluster_helpers import Space

HERE = socket.gethostname()
ELSEWHERE = Owner("another.example", "carol", 4711, 12)


def owner(pid: int, user: str = "alice") -> Owner:
    process = Process.of(pid)
    assert process is not None
    return Owner(HERE, user, process.pid, process.started)


def dead_process() -> Owner:
    child = subprocess.Popen(["sleep", "60"])
    found = owner(child.pid, "bob")
    child.kill()
    child.wait()
    return found


ME = owner(os.getpid())


@pytest.fixture
def lock(kubernetes: KubernetesClient) -> Iterator[ClusterLock]:
    yield ClusterLock(kubernetes)
    kubernetes.delete(API, KIND, NAME)


def test_a_free_lock_is_taken_and_given_back(lock: ClusterLock, space: Space) -> None:
    assert lock.holder() is None
    assert lock.acquire(ME, 60) is None
    holder = lock.holder()
    assert holder is not None
    assert holder.same_run(ME)
    seen = space.get("lease", NAME)["spec"]
    assert seen["holderIdentity"] == f"alice@{HERE}"
    assert seen["leaseDurationSeconds"] == 60
    assert lock.release(ME)
    assert lock.holder() is None
    assert not lock.release(ME)


@pytest.mark.flaky(reruns=3)
def test_a_second_owner_is_refused_at_once_and_told_whose_it_is(lock: ClusterLock) -> None:
    lock.acquire(ME, 60)
    began = time.monotonic()
    with pytest.raises(LockedError, match=rf"alice@{HERE} \(process {os.getpid()}, since \d\d:\d\d:\d\d\)"):
        lock.acquire(ELSEWHERE, 60)
    assert time.monotonic() - began < 2


def test_the_owner_may_take_it_again(lock: ClusterLock) -> None:
    lock.acquire(ME, 10)
    assert lock.acquire(ME, 1000) is None
    holder = lock.holder()
    assert holder is not None
    assert holder.until > time.time() + 900


def test_a_dead_owner_of_this_machine_is_followed_at_once(lock: ClusterLock) -> None:
    dead = dead_process()
    lock.acquire(dead, 3600)
    taken_from = lock.acquire(ME, 60)
    assert taken_from is not None
    assert taken_from.same_run(dead)
    assert not lock.release(dead)
    assert lock.release(ME)


def test_an_owner_elsewhere_keeps_it_until_the_lease_ends(lock: ClusterLock) -> None:
    lock.acquire(ELSEWHERE, 3600)
    with pytest.raises(LockedError, match=r"carol@another\.example .* Its lease ends by itself 3[56]\d\d s from now"):
        lock.acquire(ME, 60)
    assert not lock.release(ME), "a stranger has given it back"
    lock.acquire(ELSEWHERE, -1)
    taken_from = lock.acquire(ME, 60)
    assert taken_from is not None
    assert taken_from.same_run(ELSEWHERE)


class Hurried(KubernetesClient):
    """A namespace in which somebody acts between our look at the lock and our taking it."""

    def replace(self, wanted: Object) -> Object:
        with KubernetesClient(self.namespace, self.kubectl, self.kubeconfig) as other:
            self.meanwhile(other)
        return super().replace(wanted)

    def create(self, wanted: Object) -> Object:
        with KubernetesClient(self.namespace, self.kubectl, self.kubeconfig) as other:
            self.meanwhile(other)
        return super().create(wanted)

    def meanwhile(self, other: KubernetesClient) -> None:
        ClusterLock(other).acquire(ELSEWHERE, 3600)

    def delete(self, *names: str, now: bool = False, version: str = "") -> None:
        with KubernetesClient(self.namespace, self.kubectl, self.kubeconfig) as other:
            self.meanwhile(other)
        super().delete(*names, now=now, version=version)


class GivenBack(Hurried):
    def meanwhile(self, other: KubernetesClient) -> None:
        other.delete(API, KIND, NAME)


@pytest.mark.parametrize("there", [False, True])
def test_who_comes_second_by_a_hair_is_refused_too(lock: ClusterLock, space: Space, there: bool) -> None:
    if there:
        lock.acquire(Owner(HERE, "bob", 2**22 + 1, 1), 3600)
    with Hurried.of(space.options) as cluster, pytest.raises(LockedError, match=r"carol@another\.example"):
        ClusterLock(cluster).acquire(ME, 60)
    holder = lock.holder()
    assert holder is not None
    assert holder.same_run(ELSEWHERE)


def test_a_lock_that_is_given_back_meanwhile_is_taken(lock: ClusterLock, space: Space) -> None:
    lock.acquire(ELSEWHERE, -1)
    with GivenBack.of(space.options) as cluster:
        ClusterLock(cluster).acquire(ME, 60)
    holder = lock.holder()
    assert holder is not None
    assert holder.same_run(ME)


def test_a_lock_that_was_taken_over_meanwhile_is_not_given_back(lock: ClusterLock, space: Space) -> None:
    late = Owner("third.example", "dave", 4712, 13)
    lock.acquire(late, -1)
    with Hurried.of(space.options) as cluster:
        assert not ClusterLock(cluster).release(late)
    holder = lock.holder()
    assert holder is not None
    assert holder.same_run(ELSEWHERE)


def test_of_several_at_once_one_wins(lock: ClusterLock, space: Space) -> None:
    start, said = threading.Barrier(5), []

    def run(number: int) -> None:
        with KubernetesClient.of(space.options) as cluster:
            start.wait(60)
            try:
                ClusterLock(cluster).acquire(Owner(f"host-{number}.example", "x", number, 1), 60)
                said.append("won")
            except LockedError:
                said.append("refused")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == ["refused"] * 4 + ["won"]


@pytest.mark.parametrize("annotation", [None, "{", '{"host": "h", "shape": "unknown"}'])
def test_a_lease_that_is_no_lock_of_ours_is_named(lock: ClusterLock, space: Space, annotation: str | None) -> None:
    space.make({"apiVersion": API, "kind": KIND, "metadata": {"name": NAME}})
    if annotation:
        space.kubectl("annotate", "lease", NAME, f"{OWNER}={annotation}")
    with pytest.raises(ValueError, match=r"Lease titanic-deploy is not a lock .*. Delete it"):
        lock.acquire(ME, 60)
