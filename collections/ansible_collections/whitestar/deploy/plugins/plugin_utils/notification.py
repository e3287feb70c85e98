# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is told of a run to a webhook, in the shape that its reader takes."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

SECONDS = 10
EVENTS = ("start", "success", "failure", "rollback")
SAID = {"start": "started", "success": "succeeded", "failure": "FAILED", "rollback": "rolled back"}
# An error's first line says what is wrong; chats cut long texts anyway.
ERROR_LENGTH = 500


@dataclass(frozen=True)
class Notification:
    """An event of a run. ``what`` the run does, ``who`` is user@host; what is not known is empty."""

    event: str
    environment: str
    what: str
    who: str
    release: str = ""
    url: str = ""
    error: str = ""
    link: str = ""

    def text(self) -> str:
        """The event in lines for people."""
        if self.event == "rollback":
            done = f"{SAID[self.event]} to {self.release}" if self.release else SAID[self.event]
        else:
            done = f"{self.what} of {self.release}" if self.release else self.what
            done += f" {SAID[self.event]}"
        lines = [
            f"{self.environment}: {done} by {self.who}",
            self.error[:ERROR_LENGTH],
            self.url,
            self.link,
        ]
        return "\n".join(line for line in lines if line)


def _card(notification: Notification) -> dict[str, Any]:
    """An adaptive card, which Teams takes from its workflows' webhooks."""
    colour = {"failure": "Attention", "rollback": "Warning", "success": "Good"}.get(notification.event, "Default")
    first, *rest = notification.text().splitlines()
    title = {"type": "TextBlock", "text": first, "weight": "Bolder", "color": colour, "wrap": True}
    body = [title, *({"type": "TextBlock", "text": line, "wrap": True} for line in rest)]
    content = {"type": "AdaptiveCard", "version": "1.4", "body": body}
    kind = "application/vnd.microsoft.card.adaptive"
    return {"type": "message", "attachments": [{"contentType": kind, "content": content}]}


# Template -> the JSON that is sent.
TEMPLATES: dict[str, Callable[[Notification], dict[str, Any]]] = {
    "json": lambda notification: {**asdict(notification), "text": notification.text()},
    "slack": lambda notification: {"text": notification.text()},
    "teams": _card,
    # As Matrix' generic webhooks (hookshot) take it.
    "matrix": lambda notification: {"text": notification.text(), "username": "Titanic"},
}


def send(address: str, template: str, notification: Notification) -> str:
    """Post it; why it did not arrive, empty when it did. The address is a secret, and is in no message."""
    if not address.startswith(("https://", "http://")):
        return "the address begins neither with https:// nor with http://"
    body = json.dumps(TEMPLATES[template](notification)).encode()
    try:
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})  # noqa: S310 - seen to above
        with urllib.request.urlopen(request, timeout=SECONDS):  # noqa: S310 - see there
            return ""
    except urllib.error.HTTPError as error:
        return f"the listener answered with status {error.code}"
    except (OSError, ValueError) as error:
        return f"the listener was not reached ({type(getattr(error, 'reason', error)).__name__})"
