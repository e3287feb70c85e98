# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Output for people: a line for each stage, one that moves while something takes long, each error once."""

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: One line for each stage of a run
version_added: 1.0.0
author: The Titanic team (@whitestar)
description:
  - Prints one line for each stage and host, with what it did and its seconds. A stage is a role, or what a play
    includes under a name of its own.
  - While a task takes longer than two seconds a terminal has a line that says so; elsewhere a line is printed every 30
    seconds.
  - Prints an error once, as plain text. A failure that a play goes on from is told in one line.
  - Messages of M(ansible.builtin.debug), warnings, differences (C(--diff)) and the recap are printed as ever.
  - With C(-v), or another strategy than C(linear), the output is that of P(ansible.builtin.default#callback).
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - set as C(stdout_callback) in the configuration
options:
  summary_file:
    description:
      - Where to write a summary of the run as JSON, with any verbosity. The file is replaced as a whole when the run
        ends, and removed when it begins.
      - C(schema) is 1; C(check_mode) and C(failed) are booleans; C(started) is a time in ISO 8601, UTC; C(seconds) is a
        number.
      - C(hosts) has for each host the counts of the recap (C(ok), C(changed), C(unreachable), C(failed), C(skipped),
        C(rescued), C(ignored)), C(release) and C(url) (null where the run did not learn them), C(stages) and C(errors).
      - An entry of C(stages) has C(name), C(state) (C(ok), C(changed), C(failed) or C(unreachable)), C(seconds) and
        C(did), a list of what was done, in words.
      - An entry of C(errors) has C(task) and C(message), which is hidden for a task with C(no_log).
    type: path
    env:
      - name: TITANIC_SUMMARY_FILE
    ini:
      - section: callback_progress
        key: summary_file
"""

import atexit
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from ansible import constants, context
from ansible.playbook.task_include import TaskInclude
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.utils.color import stringc
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import write_atomically
from ansible_collections.whitestar.deploy.plugins.plugin_utils.run_report import (
    COLOURS,
    RunReport,
    Stage,
    TaskFacts,
    counts,
    debugged,
    error_lines,
    short_name,
    text_lines,
)
from ansible_collections.whitestar.deploy.plugins.plugin_utils.running_line import RunningLine, unheard
from ansible_collections.whitestar.deploy.plugins.plugin_utils.task_facts import (
    DEBUG,
    LINEAR,
    PROMPTS,
    VALIDATIONS,
    is_rescued,
    role_of,
    stage_of,
)


class CallbackModule(Default):
    """See DOCUMENTATION. Each event is taken down for the summary, then told in our way or in Ansible's."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "whitestar.deploy.progress"

    def __init__(self) -> None:
        super().__init__()
        self._report = RunReport()
        self._running: RunningLine | None = None
        self._brief = self._ended = False
        self._began = time.monotonic()
        self._started = datetime.now(UTC)
        # The stage that tasks belong to now: its name, its role, when it began.
        self._stage = ("", "", 0.0)
        # Task -> its name, which has been templated when it starts.
        self._names: dict[str, str] = {}
        # Task and text of errors -> the host that had it first.
        self._told: dict[tuple[str, str], str] = {}
        self._items: dict[tuple[str, str], list[str]] = {}
        self._seen: set[tuple[str, str]] = set()
        self._host_width = 0
        self._check_told = False

    # What begins.

    def v2_playbook_on_start(self, playbook: Any) -> None:
        if path := self._summary_path():
            # That of another run would be taken for that of one which did not come to its end.
            path.unlink(missing_ok=True)
        super().v2_playbook_on_start(playbook)
        atexit.register(self._tell_of_the_cut, os.getpid())

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._close_stages()
        self._brief = self._display.verbosity == 0 and play.strategy in LINEAR
        if not self._brief:
            super().v2_playbook_on_play_start(play)
            return
        self._play = play
        hosts = play.get_variable_manager().get_vars(play=play).get("ansible_play_hosts_all", [])
        self._host_width = max(map(len, hosts)) + 2 if len(hosts) > 1 else 0
        if self._running is None:
            self._running = RunningLine(self._display, terminal=sys.stdout.isatty())
            self._running.open()
        if (context.CLIARGS.get("check") or play.check_mode) and not self._check_told:
            self._check_told = True
            self._say("check mode: nothing is changed, and each stage says what it would do", constants.COLOR_SKIP)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._enter(task)
        if not self._brief:
            super().v2_playbook_on_task_start(task, is_conditional)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._enter(task)
        if not self._brief:
            super().v2_playbook_on_handler_task_start(task)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        if self._running and self._brief and task.action not in PROMPTS and task.debugger in (None, "never"):
            self._running.begin((host.get_name(), task._uuid), self._label(task, host))
        if not self._brief:
            super().v2_runner_on_start(host, task)

    # How tasks end.

    def v2_runner_on_ok(self, result: Any) -> None:
        if not isinstance(result.task, TaskInclude):
            nothing = "skipped" if result.task.action in VALIDATIONS else "ok"
            self._record(result, "changed" if result.result.get("changed") else nothing)
        if not self._brief:
            super().v2_runner_on_ok(result)
            return
        if result.task.action in DEBUG and "results" not in result.result:
            self._take_message(result)
        self._end(result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._record(result, "skipped")
        if self._brief:
            self._end(result)
        else:
            super().v2_runner_on_skipped(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        goes_on = "ignored" if ignore_errors else "rescued" if is_rescued(result.task) else ""
        items = self._items.pop(self._key(result), [])
        lines = items or error_lines(result.result, role_of(result.task))
        self._record(result, "ok" if goes_on else "failed", failed=True)
        if not goes_on:
            self._take_error(result, lines)
        if not self._brief:
            super().v2_runner_on_failed(result, ignore_errors=ignore_errors)
            return
        self._end(result)
        if goes_on:
            first = f"{goes_on}: [{self.host_label(result)}]: {self._name(result)}: {lines[0]}"
            self._say(first, constants.COLOR_SKIP)
            return
        self._close_stage(result.host.get_name())
        self._print_error(result, lines)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._record(result, "ok" if result.task.ignore_unreachable else "unreachable", failed=True)
        if not result.task.ignore_unreachable:
            self._take_error(result, error_lines(result.result))
        if not self._brief:
            super().v2_runner_on_unreachable(result)
            return
        self._end(result)
        self._close_stage(result.host.get_name())
        # The stage has said which task it was, and the message what the exception would say again.
        self._last_task_banner = result.task._uuid
        result.result.pop("exception", None)
        super().v2_runner_on_unreachable(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if not self._brief:
            super().v2_runner_item_on_ok(result)
            return
        self._handle_warnings(result.result)
        if result.task.action in DEBUG:
            self._take_message(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        if not self._brief:
            super().v2_runner_item_on_skipped(result)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        lines = error_lines(result.result, role_of(result.task))
        label = self._get_item_label(result.result)
        self._items.setdefault(self._key(result), []).extend([f"{label}: {lines[0]}", *lines[1:]])
        if self._brief:
            self._handle_warnings(result.result)
        else:
            super().v2_runner_item_on_failed(result)

    def v2_runner_retry(self, result: Any) -> None:
        if not self._brief:
            super().v2_runner_retry(result)
        elif self._running:
            tried = f"attempt {result.result['attempts'] + 1} of {result.result['retries']}"
            self._running.relabel(self._key(result), f"{self._label(result.task, result.host)}, {tried}")

    def v2_runner_on_async_poll(self, result: Any) -> None:
        if not self._brief:
            super().v2_runner_on_async_poll(result)

    def v2_runner_on_async_ok(self, result: Any) -> None:
        if not self._brief:
            super().v2_runner_on_async_ok(result)

    def v2_runner_on_async_failed(self, result: Any) -> None:
        if not self._brief:
            super().v2_runner_on_async_failed(result)

    # What else there is to tell.

    def v2_playbook_on_include(self, included_file: Any) -> None:
        if not self._brief:
            super().v2_playbook_on_include(included_file)

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        if not self._brief:
            super().v2_playbook_on_no_hosts_remaining()

    def _tell_of_the_cut(self, process: int) -> None:
        """A run that was interrupted, or ends by an error of its own, has no end that one can read."""
        if os.getpid() == process and self._stage[0] and not self._ended:
            self._close_stages()
            self._say(f"the run was cut off in the stage {self._stage[0]}. Run the same command again to go on.")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._ended = True
        self._close_stages()
        if self._running:
            self._running.close()
        if (failed := bool(stats.failures or stats.dark)) and self._brief:
            self._say("Ansible's own output: run it again with -v", constants.COLOR_SKIP)
        super().v2_playbook_on_stats(stats)
        if path := self._summary_path():
            self._write_summary(path, stats, failed=failed)

    def _print_task_banner(self, task: Any) -> None:
        """What the base class prints above a difference."""
        if not self._brief:
            super()._print_task_banner(task)
            return
        self._say(f"{self._label(task)}:")
        self._last_task_banner = task._uuid

    # Stages.

    def _enter(self, task: Any) -> None:
        """Have the stage be that of a task which starts."""
        self._names[task._uuid] = task.get_name().strip()
        name, role = stage_of(task)
        if (name, role) != self._stage[:2] or task.action in PROMPTS:
            self._close_stages()
            self._stage = (name, role, time.monotonic())

    def _current(self, host: str) -> Stage:
        """The stage of a host that runs."""
        known = self._report.host(host)
        if known.current is None:
            name, role, began = self._stage
            began = max([began, *(stage.ended for stage in known.stages)])
            known.current = Stage(name, role, began, began)
            known.stages.append(known.current)
        return known.current

    def _record(self, result: Any, state: str, *, failed: bool = False) -> None:
        host = result.host.get_name()
        stage = self._current(host)
        stage.ended = time.monotonic()
        facts = TaskFacts(
            action=str(result.task.action),
            role=role_of(result.task),
            name=self._names.get(result.task._uuid, result.task.get_name()),
            check=bool(result.task_fields.get("check_mode", result.task.check_mode)),
        )
        self._report.record(host, stage, facts, {} if failed else result.result, state)

    def _take_message(self, result: Any) -> None:
        """What a debug task was asked to show."""
        host, text = result.host.get_name(), debugged(result.result)
        if text:
            self._report.say(host, self._current(host), text_lines(text), inline=isinstance(text, str))

    def _take_error(self, result: Any, lines: list[str]) -> None:
        message = "\n".join(lines)
        if result.result.get("msg"):
            # Without what a program has printed, which may be anything.
            message = "\n".join(text_lines(result.result["msg"]))
        entry = {"task": short_name(self._name(result)), "message": message}
        self._report.host(result.host.get_name()).errors.append(entry)

    def _close_stages(self) -> None:
        for host in list(self._report.hosts):
            self._close_stage(host)

    def _close_stage(self, host: str) -> None:
        """The end of a host's stage: its line, and what was to be said below it."""
        known = self._report.host(host)
        stage, known.current = known.current, None
        if stage is None or stage.state == "skipped":
            return
        again = (host, stage.role) in self._seen
        self._seen.add((host, stage.role))
        # What a role has to do at the end of a run is worth a line only if it does something.
        if not self._brief or (again and stage.silent):
            return
        before = f"{host:<{self._host_width}}" if self._host_width else ""
        width = get_terminal_size().columns if sys.stdout.isatty() else 0
        painted = stage.line(before, width, lambda state: str(stringc(state, COLOURS[stage.state])))
        self._say(stage.line(before), shown=painted)
        for text in stage.messages:
            self._say(f"  {before}{text}".rstrip())

    # Lines.

    def _say(self, text: str, colour: str | None = None, shown: str = "") -> None:
        """Print a line now, also into a pipe; ``shown`` is what a screen gets instead."""
        with unheard():
            self._display.display(shown or text, color=colour, screen_only=bool(shown))
            if shown:
                self._display.display(text, log_only=True)

    def _print_error(self, result: Any, lines: list[str]) -> None:
        """An error, and of one that another host has had with the same task which host that was."""
        key = (result.task._uuid, "\n".join(lines))
        first = self._told.setdefault(key, result.host.get_name())
        head = f"fatal: [{self.host_label(result)}]: {self._name(result)}"
        text = f"{head}: as on {first}" if first != result.host.get_name() else "\n  ".join([head, *lines])
        with unheard():
            self._display.display(text, color=constants.COLOR_ERROR, stderr=self.get_option("display_failed_stderr"))

    def _end(self, result: Any) -> None:
        """A task has ended: its line goes, its warnings stay."""
        if self._running:
            self._running.end(self._key(result))
        self._handle_warnings(result.result)

    def _key(self, result: Any) -> tuple[str, str]:
        return result.host.get_name(), result.task._uuid

    def _name(self, result: Any) -> str:
        """A task's name without its role's, which it begins with anyway."""
        return str(self._names.get(result.task._uuid, result.task.get_name())).rpartition(" : ")[2]

    def _label(self, task: Any, host: Any = None) -> str:
        """What the running line says of a task, on a host where there are several."""
        name = short_name(self._names.get(task._uuid, task.get_name()))
        stage = stage_of(task)[0]
        before = f"{host.get_name()}: " if host and self._host_width else ""
        return before + (stage if name == stage else f"{stage} | {name}")

    # The summary.

    def _summary_path(self) -> Path | None:
        path = self.get_option("summary_file")
        return Path(path) if path else None

    def _write_summary(self, path: Path, stats: Any, *, failed: bool) -> None:
        text = self._report.summary(
            counts(stats),
            check_mode=bool(context.CLIARGS.get("check")),
            failed=failed,
            started=self._started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self._began, 1),
        )
        try:
            write_atomically(path, text.encode(), 0o644)
        except OSError as error:
            self._display.warning(f"summary_file: {path} cannot be written: {error.strerror}. Name another file.")
