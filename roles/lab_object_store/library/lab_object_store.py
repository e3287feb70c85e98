#!/usr/bin/python
"""Keep an S3 server on this machine, over HTTPS, with the buckets that it should have."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_object_store
short_description: Keep a throwaway S3 server
description:
  - Runs SeaweedFS of a wheel, whose hash is locked, with an account and a certificate that are made once.
author: The Titanic team (@whitestar)
options:
  state:
    description: Whether there is a store. C(absent) removes it with what it holds.
    type: str
    choices: [present, absent]
    default: present
  directory:
    description: Holds everything of the store.
    type: path
    required: true
  cache:
    description: Where the program stays.
    type: path
    required: true
  requirements:
    description: File that locks the wheel.
    type: path
    required: true
  address:
    description: Address on which it speaks S3, which its certificate is for.
    type: str
    default: 127.0.0.1
  port:
    description: Port there; the eight that follow are taken on 127.0.0.1.
    type: int
    required: true
  buckets:
    description: Names of the buckets that it has.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Says whether a store would be started or removed and which buckets would be made, and does nothing.
    support: full
  diff_mode:
    description: Shows what would be started or made.
    support: full
"""

EXAMPLES = r"""
- name: Keep an S3 server
  lab_object_store:
    directory: /var/lib/titanic-lab/object-store
    cache: /var/cache/titanic-lab
    requirements: "{{ role_path }}/files/requirements.txt"
    port: 5060
    buckets: [titanic]
"""

RETURN = r"""
store:
  description: >-
    C(endpoint) (host:port), C(authority) (PEM of who has signed its certificate; empty while there is none),
    C(access_key_file) and C(secret_key_file), C(buckets).
  returned: success
  type: dict
"""

import hashlib
import http.client
import ipaddress
import os
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    exclusively,
    json_bytes,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Daemon
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PROGRAM = "weed"
START_SECONDS = 60
STOP_SECONDS = 10
ANSWER_SECONDS = 5
STEP_SECONDS = 600
# A lab does not last longer.
CERTIFICATE_DAYS = 365
LOCAL = "127.0.0.1"
# The parts of it that talk to each other, each with a port of its own.
PARTS = [f"{part}.port{kind}" for part in ("master", "volume", "filer") for kind in ("", ".grpc")] + ["s3.port.grpc"]


class StoreError(RuntimeError):
    """The store could not be brought to the state that was asked for; the message says why."""


def run(command: Sequence[str]) -> str:
    """Standard output of ``command``. Raises StoreError with the end of what it said."""
    try:
        done = subprocess.run(
            list(command), cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=STEP_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StoreError(f"{command[0]} could not be run: {error}") from error
    if done.returncode:
        raise StoreError(f"'{shlex.join(command)}' failed: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout


class Store:
    """An S3 server in one directory."""

    def __init__(self, directory: Path, cache: Path, requirements: Path, address: str, port: int) -> None:
        self.directory, self.address, self.port = directory, address, port
        self.requirements = requirements
        locked = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
        self.tools = cache / "packages" / f"object-store-{locked}"
        self.daemon = Daemon(directory, "object-store", directory / "object-store.log")
        self.authority, self.certificate, self.key = (
            directory / name for name in ("authority.pem", "certificate.pem", "key.pem")
        )
        self.access, self.secret = directory / "access_key", directory / "secret_key"

    def command(self) -> list[str]:
        """How it is started."""
        ports = {name: self.port + number for number, name in enumerate(PARTS, 1)}
        options = {
            "dir": self.directory / "data",
            "ip": LOCAL,
            "ip.bind": LOCAL,
            "master.volumeSizeLimitMB": 256,
            "volume.max": 0,
            "s3": "true",
            "s3.ip.bind": self.address,
            "s3.port": self.port,
            "s3.cert.file": self.certificate,
            "s3.key.file": self.key,
            "s3.config": self.directory / "account.json",
            "s3.autoCreateBucket": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            **ports,
        }
        return [str(self.tools / "bin" / PROGRAM), "server", *(f"-{name}={value}" for name, value in options.items())]

    def ready(self) -> bool:
        """Whether it runs as it should and answers."""
        process = self.daemon.process()
        return process is not None and self.daemon.facts().get("argv") == self.command() and self._answers()

    def _answers(self) -> bool:
        try:
            trusted = ssl.create_default_context(cafile=str(self.authority))
            connection = http.client.HTTPSConnection(self.address, self.port, timeout=ANSWER_SECONDS, context=trusted)
            connection.request("GET", "/")
            return connection.getresponse().status in (200, 403)
        except (OSError, http.client.HTTPException):
            return False

    def start(self) -> None:
        """Install, configure and start it anew. Raises StoreError with the end of its log."""
        self.daemon.stop(STOP_SECONDS)
        with suppress(OSError), socket.create_connection((self.address, self.port), ANSWER_SECONDS):
            raise StoreError(f"{self.address}:{self.port}: address already in use: choose another port")
        if not (self.tools / "bin" / PROGRAM).is_file():
            self._install()
        (self.directory / "data").mkdir(exist_ok=True)
        if not self.access.exists():
            for path in (self.access, self.secret):
                write_atomically(path, token_hex(20).encode(), 0o600)
        self._certify()
        account = {"accessKey": self.access.read_text(), "secretKey": self.secret.read_text()}
        identity = {"name": "lab", "credentials": [account], "actions": ["Read", "Write", "List", "Tagging"]}
        write_atomically(self.directory / "account.json", json_bytes({"identities": [identity]}), 0o600)
        process = self.daemon.start(self.command(), {"PATH": "/usr/bin:/bin", "HOME": str(self.directory)}, {})
        deadline = time.monotonic() + START_SECONDS
        while not self.ready():
            if not process.alive() or time.monotonic() > deadline:
                raise StoreError(f"it did not come up on {self.address}, its log ends:\n{self.daemon.log_tail()}")
            time.sleep(0.1)

    def _install(self) -> None:
        words = [sys.executable, "-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:"]
        new = self.tools.with_name(f".{self.tools.name}.{os.getpid()}")
        run([*words, "--no-deps", "--target", str(new), "--requirement", str(self.requirements)])
        shutil.rmtree(self.tools, ignore_errors=True)
        new.rename(self.tools)

    def _certify(self) -> None:
        """Have a certificate for its address, of an authority of its own, both for as long as a lab lasts."""
        names = [str(self.address)]
        if self.certificate.exists() and names_of(self.certificate) == names:
            return
        now = datetime.now(UTC)
        signer = ec.generate_private_key(ec.SECP256R1())
        own = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab_object_store")])
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.address)])

        def certify(name: x509.Name, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
            built = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
            built = built.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
            built = built.not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
            built = built.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            if not authority:
                built = built.add_extension(x509.SubjectAlternativeName([general_name(self.address)]), critical=False)
            return built.sign(signer, hashes.SHA256())

        pem = serialization.Encoding.PEM
        write_atomically(self.authority, certify(issuer, signer, authority=True).public_bytes(pem), 0o644)
        clear = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        write_atomically(self.key, own.private_bytes(pem, *clear), 0o600)
        write_atomically(self.certificate, certify(subject, own, authority=False).public_bytes(pem), 0o644)

    def missing(self, buckets: Sequence[str]) -> list[str]:
        """The buckets that it does not have."""
        return [name for name in buckets if self._ask("HEAD", name) != 200]

    def make(self, bucket: str) -> None:
        """Have a bucket, which is a directory of its file service. Raises StoreError."""
        status = self._ask("POST", bucket)
        if status not in (200, 201):
            raise StoreError(f"bucket {bucket} could not be made: the store answered {status}")

    def _ask(self, method: str, bucket: str) -> int:
        """The status that the file service answers of a bucket; 0 if it does not."""
        connection = http.client.HTTPConnection(
            LOCAL, self.port + PARTS.index("filer.port") + 1, timeout=ANSWER_SECONDS
        )
        try:
            connection.request(method, f"/buckets/{bucket}/")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def absent(self) -> None:
        """Stop it and remove its directory."""
        self.daemon.stop(STOP_SECONDS)
        shutil.rmtree(self.directory)
        with suppress(OSError):  # the lab's own directory, once it is empty
            self.directory.parent.rmdir()

    def facts(self, buckets: Sequence[str]) -> dict[str, Any]:
        """What who uses it has to know."""
        return {
            "endpoint": f"{self.address}:{self.port}",
            "authority": self.authority.read_text() if self.authority.exists() else "",
            "access_key_file": str(self.access),
            "secret_key_file": str(self.secret),
            "buckets": list(buckets),
        }


def general_name(address: str) -> x509.GeneralName:
    """An address or a name as a certificate has it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def names_of(path: Path) -> list[str]:
    """What a certificate is for; nothing once it has run out."""
    found = x509.load_pem_x509_certificate(path.read_bytes())
    if found.not_valid_after_utc < datetime.now(UTC) + timedelta(days=1):
        return []
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def present(module: AnsibleModule, store: Store) -> list[str]:
    """What was to do, in words."""
    buckets: list[str] = module.params["buckets"]
    done = []
    if not store.ready():
        done.append(f"start a store on {store.address}:{store.port}")
        if not module.check_mode:
            store.start()
    for bucket in buckets if module.check_mode and done else store.missing(buckets):
        done.append(f"make bucket {bucket}")
        if not module.check_mode:
            store.make(bucket)
    return done


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "directory": {"type": "path", "required": True},
            "cache": {"type": "path", "required": True},
            "requirements": {"type": "path", "required": True},
            "address": {"type": "str", "default": LOCAL},
            "port": {"type": "int", "required": True},
            "buckets": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    options, directory = module.params, Path(module.params["directory"])
    store = Store(directory, Path(options["cache"]), Path(options["requirements"]), options["address"], options["port"])
    try:
        if options["state"] == "absent":
            done = [f"remove {directory}"] if directory.exists() else []
            if done and not module.check_mode:
                store.absent()
        elif module.check_mode:
            done = present(module, store)
        else:
            with exclusively(directory):
                done = present(module, store)
    except (StoreError, OSError, ValueError) as error:
        module.fail_json(msg=f"lab_object_store: {error}")
    after = "".join(f"{step}\n" for step in done)
    module.exit_json(changed=bool(done), store=store.facts(options["buckets"]), diff={"before": "", "after": after})


if __name__ == "__main__":
    main()
