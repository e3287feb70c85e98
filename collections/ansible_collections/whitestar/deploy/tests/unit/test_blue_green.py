# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of the switch: ready before drain, drain before stop, and a failure that leaves the old one alone."""

from __future__ import annotations

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.release.blue_green import (
    COLOURS,
    Colours,
    ReleaseError,
    other,
    switch,
)


class Recorder:
    """Colours that write down what is asked of them; ``fails`` names the step that raises ``error``."""

    def __init__(self, fails: str = "", error: BaseException | None = None) -> None:
        self.steps: list[str] = []
        self.fails = fails
        self.error = error or ReleaseError("never ready")

    def _note(self, step: str, colour: str) -> None:
        self.steps.append(f"{step} {colour}")
        if step == self.fails:
            raise self.error

    def serving(self, colour: str) -> bool:
        return colour in COLOURS

    def start(self, colour: str) -> None:
        self._note("start", colour)

    def wait_until_ready(self, colour: str) -> None:
        self._note("wait", colour)

    def try_out(self, colour: str) -> None:
        self._note("try", colour)

    def admit(self, colour: str) -> None:
        self._note("admit", colour)

    def watch(self, colour: str) -> None:
        self._note("watch", colour)

    def record_evidence(self, colour: str) -> None:
        self._note("evidence", colour)

    def drain(self, colour: str) -> None:
        self._note("drain", colour)

    def stop(self, colour: str) -> None:
        self._note("stop", colour)


def test_the_new_one_is_ready_before_the_old_one_is_drained() -> None:
    recorder: Colours = Recorder()
    assert switch(recorder, "blue") == "green"
    assert isinstance(recorder, Recorder)
    assert recorder.steps == [
        "start green",
        "wait green",
        "try green",
        "admit green",
        "drain blue",
        "watch green",
        "stop blue",
    ]


def test_the_colours_take_turns() -> None:
    assert switch(Recorder(), "green") == "blue"
    assert (other("blue"), other("green")) == ("green", "blue")


def test_the_first_release_has_nothing_to_drain() -> None:
    recorder = Recorder()
    assert switch(recorder, None) == "blue"
    assert recorder.steps == ["start blue", "wait blue", "try blue", "admit blue"]


@pytest.mark.parametrize("error", [ReleaseError("never ready"), OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["start", "wait", "try", "admit"])
def test_a_failure_stops_the_new_one_and_leaves_the_old_one(step: str, error: BaseException) -> None:
    recorder = Recorder(step, error)
    with pytest.raises(type(error)):
        switch(recorder, "blue")
    assert recorder.steps[-2:] == ["evidence green", "stop green"]
    assert not any("blue" in asked for asked in recorder.steps)


def test_a_release_that_fails_its_analysis_gives_way_to_the_one_before() -> None:
    recorder = Recorder("watch")
    with pytest.raises(ReleaseError):
        switch(recorder, "blue")
    after = recorder.steps[recorder.steps.index("watch green") + 1 :]
    assert after == ["admit blue", "drain green", "evidence green", "stop green"]
