# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts as people write them, IPv6 with brackets or without, and ``host:port``, where IPv6 has brackets (RFC 3986)."""

from __future__ import annotations

import re
from ipaddress import ip_address

LABEL = re.compile(r"[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?")


def bare_host(host: str) -> str:
    """A host without the brackets of an IPv6 address."""
    return host[1:-1] if re.fullmatch(r"\[.*:.*]", host) else host


def host_port(host: str, port: int | str) -> str:
    """``192.0.2.1:80`` or ``[2001:db8::1]:80``."""
    host = bare_host(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_host_port(address: str) -> tuple[str, int]:
    """Host, without brackets, and port. Raises ValueError if there is no port."""
    host, _, port = address.rpartition(":")
    return bare_host(host), int(port)


def published(host: str, port: int | str, inside: int) -> list[str]:
    """The entries of a Compose service's ``ports`` that publish a port of a container at this host.

    Compose takes no names, and means IPv6 alone by ``::``, at which a process listens for both.
    """
    host = bare_host(host)
    hosts = ["127.0.0.1"] if host.lower() == "localhost" else [host]
    if ":" in host and ip_address(host).is_unspecified:
        hosts.append("0.0.0.0")  # noqa: S104 - as asked for
    return [f"{host_port(each, port)}:{inside}" for each in hosts]


def wrong_host(host: str, *, names: bool) -> str:
    """Why nothing can listen at a host, with the remedy; empty if something may. ``names`` is whether it may be any."""
    example = "such as 127.0.0.1, ::1 or 0.0.0.0"
    bare = bare_host(host)
    try:
        ip_address(bare)
    except ValueError:
        labels = bare.split(".")
        named = all(LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit() and len(bare) <= 253
        if not named:
            return f"'{host}' is no address. Give one without scheme and port, {example}."
        if not names and bare.lower() != "localhost":
            return f"{host} is a name, and Docker publishes a port at an address. Give one of the host, {example}."
        return ""
    return f"'{host}' has a zone. Give an address without one, {example}." if "%" in bare else ""
