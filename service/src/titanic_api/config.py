# ruff: noqa: RUF009 (the calls make dataclass fields, with the variable that each is read from)
"""Reads the settings once, from the environment and the files it names, into one frozen, typed object."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

Network = IPv4Network | IPv6Network
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
# Whoever asks the service itself, over no proxy.
DIRECT = "direct"

# Kubernetes puts these into every container beside a Service whose name begins with "titanic".
SERVICE_LINK = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_|$)|_PORT$|_PORT_\d+_(TCP|UDP)(_|$)")
LOG_LEVELS = ("debug", "info", "warning", "error")
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


class ConfigurationError(Exception):
    """A setting is missing or has a value that cannot be used; the message names the variable."""


def _text(value: str) -> str:
    if not value or any(ord(character) < 32 for character in value):
        raise ValueError("must be text of one line")
    return value


@dataclass(frozen=True)
class _Number:
    """A number of a ``unit``, such as ``seconds``, whole if ``convert`` is ``int``."""

    convert: type[int | float]
    least: float
    most: float
    unit: str

    def __call__(self, value: str) -> Any:
        try:
            number = self.convert(value)
        except ValueError:
            raise ValueError(f"must be a number of {self.unit}") from None
        if not self.least <= number <= self.most:
            raise ValueError(f"must be {self.least} to {self.most} {self.unit}")
        return number

    def rule(self) -> dict[str, Any]:
        kind = "integer" if self.convert is int else "number"
        return {"type": kind, "least": self.least, "most": self.most, "unit": self.unit}


@dataclass(frozen=True)
class _Choice:
    """One of some words."""

    choices: tuple[str, ...]

    def __call__(self, value: str) -> str:
        if value not in self.choices:
            raise ValueError("must be one of " + ", ".join(self.choices))
        return value

    def rule(self) -> dict[str, Any]:
        return {"type": "choice", "choices": list(self.choices)}


def _path(value: str) -> Path:
    return Path(_text(value))


def _networks(value: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(part.strip()) for part in value.split(","))
    except ValueError:
        raise ValueError("must be networks such as 10.0.0.0/8, with commas between them") from None


def _scrapers(value: str) -> tuple[Network | str, ...]:
    try:
        parts = [part.strip() for part in value.split(",")]
        return tuple(part if part == DIRECT else ip_network(part) for part in parts)
    except ValueError:
        raise ValueError(f"must be networks such as 10.0.0.0/8, or {DIRECT}, with commas between them") from None


def _bind(value: str) -> str:
    host, separator, port = value.rpartition(":")
    if value.startswith("unix:/") or (separator and host and port.isdigit() and 0 <= int(port) <= 65535):
        return value
    raise ValueError("must be unix:/path or host:port")


@dataclass(frozen=True)
class Setting:
    """One environment variable: how its text is read and what it is for (``meaning`` is shown in the README)."""

    variable: str
    parse: Callable[[str], Any]
    meaning: str
    default: str = ""


def _setting(variable: str, parse: Callable[[str], Any], default: Any, shown: str, meaning: str) -> Any:
    metadata = {"setting": Setting(variable, parse, meaning, shown)}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be chosen about a running service. Times are in seconds, sizes in bytes."""

    database_host: str = field(
        metadata={
            "setting": Setting(
                "TITANIC_DATABASE_HOST", _text, "host name or socket directory (an absolute path)", "required"
            )
        }
    )
    database_port: int = _setting(
        "TITANIC_DATABASE_PORT", _Number(int, 1, 65535, "port"), 5432, "5432", "port, also part of the socket's name"
    )
    database_name: str = _setting("TITANIC_DATABASE_NAME", _text, "titanic", "titanic", "database")
    database_user: str = _setting(
        "TITANIC_DATABASE_USER", _text, "titanic_app", "titanic_app", "application role: reads and writes rows only"
    )
    database_password_file: Path | None = _setting(
        "TITANIC_DATABASE_PASSWORD_FILE", _path, None, "none", "file holding the application role's password"
    )
    database_owner: str = _setting(
        "TITANIC_DATABASE_OWNER", _text, "titanic_owner", "titanic_owner", "role that migrates and seeds"
    )
    database_owner_password_file: Path | None = _setting(
        "TITANIC_DATABASE_OWNER_PASSWORD_FILE",
        _path,
        None,
        "none",
        "file holding the owner's password; only `migrate` and `seed` read it",
    )
    database_sslmode: str = _setting(
        "TITANIC_DATABASE_SSLMODE", _Choice(SSL_MODES), "prefer", "prefer", "libpq's sslmode"
    )
    database_sslrootcert: Path | None = _setting(
        "TITANIC_DATABASE_SSLROOTCERT", _path, None, "none", "file with the authority that signed the server"
    )
    bind: str = _setting(
        "TITANIC_BIND", _bind, "0.0.0.0:8000", "0.0.0.0:$PORT", "`unix:/path` or `host:port`; PORT is 8000 by default"
    )
    workers: int = _setting("TITANIC_WORKERS", _Number(int, 1, 64, "processes"), 2, "2", "worker processes")
    release: str = _setting(
        "TITANIC_RELEASE", _text, "unknown", "unknown", "release id shown by `/version` and the metric build_info"
    )
    drain_file: Path | None = _setting(
        "TITANIC_DRAIN_FILE", _path, None, "none", "while this file exists `/readyz` answers 503, draining"
    )
    pool_size: int = _setting(
        "TITANIC_POOL_SIZE", _Number(int, 1, 64, "connections"), 4, "4", "database connections of each worker"
    )
    pool_timeout_seconds: float = _setting(
        "TITANIC_POOL_TIMEOUT_SECONDS",
        _Number(float, 0.5, 60, "seconds"),
        2.0,
        "2",
        "a request whose database stays silent (or whose pool stays empty) this long is answered 503",
    )
    statement_timeout_seconds: float = _setting(
        "TITANIC_STATEMENT_TIMEOUT_SECONDS", _Number(float, 0.1, 3600, "seconds"), 5.0, "5", "longest statement"
    )
    cache_max_stale_seconds: float = _setting(
        "TITANIC_CACHE_MAX_STALE_SECONDS",
        _Number(float, 0, 3600, "seconds"),
        0.0,
        "0",
        "0: no read is older than the last write acknowledged before it began; more: reads may be this old",
    )
    max_list_people: int = _setting(
        "TITANIC_MAX_LIST_PEOPLE",
        _Number(int, 1, 10000000, "people"),
        50000,
        "50000",
        "longest list without `limit`; a longer one is refused. While it is read, each of them takes a KiB of a worker",
    )
    max_body_bytes: int = _setting(
        "TITANIC_MAX_BODY_BYTES", _Number(int, 1024, 16777216, "bytes"), 65536, "65536", "longest request body"
    )
    request_timeout_seconds: float = _setting(
        "TITANIC_REQUEST_TIMEOUT_SECONDS", _Number(float, 0.1, 3600, "seconds"), 30.0, "30", "longest arrival of a body"
    )
    graceful_timeout_seconds: int = _setting(
        "TITANIC_GRACEFUL_TIMEOUT_SECONDS",
        _Number(int, 1, 3600, "seconds"),
        20,
        "20",
        "how long SIGTERM lets running requests finish",
    )
    keepalive_seconds: int = _setting(
        "TITANIC_KEEPALIVE_SECONDS",
        _Number(int, 0, 3600, "seconds"),
        2,
        "2",
        "how long an idle connection is kept, even while stopping; 0: every answer closes its connection",
    )
    rate_limit_per_minute: int = _setting(
        "TITANIC_RATE_LIMIT_PER_MINUTE",
        _Number(int, 0, 1000000, "requests"),
        0,
        "0",
        "requests a minute of one client address, 0 = no limit",
    )
    counts_file: Path | None = _setting(
        "TITANIC_COUNTS_FILE",
        _path,
        None,
        "memory of this instance",
        "where instances on one host keep one count for that limit, 512 KiB",
    )
    trusted_proxies: tuple[Network, ...] = _setting(
        "TITANIC_TRUSTED_PROXIES",
        _networks,
        LOOPBACK,
        "127.0.0.0/8,::1/128",
        "who is believed about whom they speak for, by the last entry of `X-Forwarded-For`; a socket always is",
    )
    write_tokens_file: Path | None = _setting(
        "TITANIC_WRITE_TOKENS_FILE",
        _path,
        None,
        "none",
        "one bearer token a line, `TOKEN until 2026-12-31T00:00:00Z` for one that ends; none = anyone may write",
    )
    metrics_directory: Path | None = _setting(
        "TITANIC_METRICS_DIRECTORY",
        _path,
        None,
        "a fresh temporary directory",
        "where the workers keep the files of their metrics",
    )
    metrics_from: tuple[Network | str, ...] = _setting(
        "TITANIC_METRICS_FROM",
        _scrapers,
        LOOPBACK,
        "127.0.0.0/8,::1/128",
        "clients that get the metrics; `direct`: whoever asks over no proxy. A socket over none always does",
    )
    log_level: str = _setting(
        "TITANIC_LOG_LEVEL",
        _Choice(LOG_LEVELS),
        "info",
        "info",
        f"least serious log line: {', '.join(LOG_LEVELS)}; a probe that succeeds is debug",
    )

    @classmethod
    def variables(cls) -> list[str]:
        """The names of all settings in the environment, in order."""
        return sorted(spec.metadata["setting"].variable for spec in fields(cls))

    @classmethod
    def rules(cls) -> dict[str, dict[str, Any]]:
        """What a deployer can hold a value to before it is served: of numbers their range, of words the choices."""
        settings = [spec.metadata["setting"] for spec in fields(cls)]
        return {each.variable: each.parse.rule() for each in settings if isinstance(each.parse, _Number | _Choice)}

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read every setting from ``environ``; text stays text, whatever it looks like.

        Raises ConfigurationError, naming the variable, for a missing, empty, unusable or unknown one.
        """
        values: dict[str, Any] = {}
        known = cls.variables()
        for spec in fields(cls):
            setting: Setting = spec.metadata["setting"]
            text = environ.get(setting.variable)
            if text is None:
                continue
            try:
                values[spec.name] = setting.parse(text)
            except ValueError as error:
                raise ConfigurationError(f"{setting.variable} {error}, not {text!r}") from None
        strangers = (name for name in environ if name.startswith("TITANIC_") and name not in known)
        unknown = sorted(name for name in strangers if not SERVICE_LINK.search(name))
        if unknown:
            raise ConfigurationError(f"{unknown[0]} is not a setting of this service")
        if "database_host" not in values:
            raise ConfigurationError("TITANIC_DATABASE_HOST is required: a host name or a socket directory")
        if "bind" not in values and "PORT" in environ:
            try:
                values["bind"] = _bind("0.0.0.0:" + environ["PORT"])
            except ValueError:
                raise ConfigurationError(f"PORT must be 0 to 65535, not {environ['PORT']!r}") from None
        return cls(**values)

    def write_tokens(self) -> dict[str, float]:
        """The bearer tokens that may write, each until when (seconds since 1970); empty means that anyone may."""
        if self.write_tokens_file is None:
            return {}
        lines = _read(self.write_tokens_file, "TITANIC_WRITE_TOKENS_FILE").splitlines()
        tokens = dict(_token(line, self.write_tokens_file) for line in lines if line.strip())
        if not tokens:
            # An empty file would silently open the writes that someone meant to close.
            raise ConfigurationError(f"TITANIC_WRITE_TOKENS_FILE {self.write_tokens_file} holds no token")
        return tokens

    def password(self, owner: bool = False) -> str | None:
        """The password of the application role, or of the owner; None where no file is named."""
        if owner:
            path, variable = self.database_owner_password_file, "TITANIC_DATABASE_OWNER_PASSWORD_FILE"
        else:
            path, variable = self.database_password_file, "TITANIC_DATABASE_PASSWORD_FILE"
        return None if path is None else _read(path, variable).rstrip("\r\n")


def _token(line: str, path: Path) -> tuple[str, float]:
    """A token and until when it is good. Of a moment that cannot be read only the file is named."""
    token, ends, moment = line.strip().partition(" until ")
    if not ends:
        return token, math.inf
    try:
        until = datetime.fromisoformat(moment.strip())
    except ValueError:
        raise ConfigurationError(
            f"TITANIC_WRITE_TOKENS_FILE {path} has a token until a moment that is none: write 2026-12-31T00:00:00Z"
        ) from None
    return token.strip(), (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp()


def _read(path: Path, variable: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigurationError(f"{variable} cannot be read: {os.fspath(path)}: {reason}") from None
