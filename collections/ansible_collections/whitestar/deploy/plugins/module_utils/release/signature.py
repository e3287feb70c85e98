# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a release was signed by who may sign it, and was made of the source that it is said to be made of.

Sigstore's cosign judges signatures; nothing here does. Signed provenance is an in-toto statement with SLSA
provenance 1.0.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import tree_hash

OPTION = {
    "type": "dict",
    "required": True,
    "required_one_of": [("key", "identity")],
    "mutually_exclusive": [("key", "identity")],
    "required_together": [("identity", "issuer")],
    "options": {
        name: {"type": "str"}
        for name in ("key", "identity", "issuer", "repository", "ref", "builder", "provenance", "program")
    },
}
SLSA = "slsaprovenance1"
# How cosign calls a signature, from 3 on and before; it also tells of attestations, which say something else.
SIGNATURES = ("https://sigstore.dev/cosign/sign/v1", "cosign container image signature")
SECONDS = 120
REMEDY = "Sign it, or correct what titanic_image_verify asks for."


class SignatureError(RuntimeError):
    """The release may not serve; the message says why and what to do."""


def source_digest(project: Path, requirements: Path, exclude: Sequence[str]) -> str:
    """SHA-256 (hex) that names what a local release is made of: the tree and what it needs. Raises OSError."""
    tree = tree_hash(project, exclude)
    needs = hashlib.sha256(requirements.read_bytes()).hexdigest()
    return hashlib.sha256(f"{tree}\n{needs}\n".encode()).hexdigest()


def verified_image(name: str, wanted: Mapping[str, Any], login: Mapping[str, str] | None = None) -> str:
    """The reference by digest of the image that a registry has under ``name``. Raises SignatureError.

    The signature is on the digest, so a tag that was moved is judged by what it names now.
    """
    with _configuration(name, login) as environment:
        signed = _json_lines(_cosign(wanted, ["verify", "--output=json", name], environment, name))
        entries = [entry for line in signed for entry in (line if isinstance(line, list) else [line])]
        signatures = [entry["critical"] for entry in entries if entry["critical"].get("type") in SIGNATURES]
        digests = {str(signature["image"]["docker-manifest-digest"]) for signature in signatures}
        if len(digests) != 1:
            raise SignatureError(f"titanic_image_verify: {name} has no signature on one digest. {REMEDY}")
        reference = f"{_repository(name)}@{digests.pop()}"
        if _asks_for_provenance(wanted):
            words = ["verify-attestation", f"--type={SLSA}", "--output=json", reference]
            envelopes = _json_lines(_cosign(wanted, words, environment, name))
            _require_provenance([_statement(envelope) for envelope in envelopes], wanted, name)
    return reference


def require_source(digest: str, wanted: Mapping[str, Any]) -> None:
    """Hold a tree with this :func:`source_digest` to its signed provenance. Raises SignatureError."""
    bundle = Path(str(wanted["provenance"]))
    what = f"the source {digest[:12]}"
    if not bundle.is_file():
        raise SignatureError(f"titanic_image_verify: {what} has no signed provenance, {bundle} is missing. {REMEDY}")
    words = ["verify-blob-attestation", f"--type={SLSA}", f"--bundle={bundle}", f"--digest={digest}"]
    _cosign(wanted, [*words, "--digestAlg=sha256"], dict(os.environ), what)
    if _asks_for_provenance(wanted):
        envelope = json.loads(bundle.read_text(encoding="utf-8"))["dsseEnvelope"]
        _require_provenance([_statement(envelope)], wanted, what)


def wrong_provenance(statement: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What a statement says otherwise than ``repository``, ``ref`` and ``builder`` ask for."""
    predicate = statement.get("predicate") or {}
    builder = ((predicate.get("runDetails") or {}).get("builder") or {}).get("id", "")
    dependencies = (predicate.get("buildDefinition") or {}).get("resolvedDependencies") or []
    uris = [str(one.get("uri", "")).removeprefix("git+") for one in dependencies if one.get("uri")]
    sources = [(uri.rpartition("@")[0], uri.rpartition("@")[2]) if "@" in uri else (uri, "") for uri in uris]
    found = {
        "repository": {repository for repository, _ in sources},
        "ref": {ref for repository, ref in sources if wanted.get("repository") in (None, repository)},
        "builder": {builder},
    }
    return [
        f"its {key} is {' or '.join(sorted(filter(None, values))) or 'not told'}, not {wanted[key]}"
        for key, values in found.items()
        if wanted.get(key) and wanted[key] not in values
    ]


def _asks_for_provenance(wanted: Mapping[str, Any]) -> bool:
    return any(wanted.get(key) for key in ("repository", "ref", "builder"))


def _require_provenance(statements: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any], what: str) -> None:
    """One of the signed statements has to say what is asked for; another says what another build was."""
    wrong = [wrong_provenance(statement, wanted) for statement in statements]
    if not wrong or all(wrong):
        told = "; ".join(wrong[0]) if wrong else "nobody has signed any"
        raise SignatureError(f"titanic_image_verify: the provenance of {what} does not hold: {told}. {REMEDY}")


def _statement(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """The statement that a DSSE envelope carries. Raises SignatureError for another thing."""
    try:
        found: dict[str, Any] = json.loads(base64.b64decode(envelope["payload"]))
    except (KeyError, ValueError, TypeError) as error:
        raise SignatureError("titanic_image_verify: the provenance cannot be read. Attest it again.") from error
    return found


def _json_lines(output: str) -> list[Any]:
    """The values that cosign prints, one line for each. Raises SignatureError for any other output."""
    try:
        return [json.loads(line) for line in output.splitlines() if line.strip()]
    except ValueError as error:
        raise SignatureError("titanic_image_verify: cosign's answer is no JSON. Use cosign 2.4 or later.") from error


def _repository(name: str) -> str:
    """An image's name without its tag; a port is none."""
    head, _, last = name.rpartition("/")
    return f"{head}/{last.partition(':')[0]}" if head else last.partition(":")[0]


def _signer(wanted: Mapping[str, Any]) -> list[str]:
    """Who must have signed. A key is enough; a certificate of some minutes needs the log that says when it was used."""
    if wanted.get("key"):
        return [f"--key={wanted['key']}", "--insecure-ignore-tlog=true"]
    return [f"--certificate-identity={wanted['identity']}", f"--certificate-oidc-issuer={wanted['issuer']}"]


def _cosign(wanted: Mapping[str, Any], words: Sequence[str], environment: Mapping[str, str], what: str) -> str:
    """Standard output of cosign. Raises SignatureError with its own last word where it refuses."""
    program = str(wanted.get("program") or "cosign")
    command = [program, words[0], *_signer(wanted), *words[1:]]
    try:
        done = subprocess.run(
            command, env=dict(environment), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS
        )
    except FileNotFoundError as error:
        where = "where the signature is looked at"
        raise SignatureError(f"titanic_image_verify: there is no program {program} {where}. Install it.") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SignatureError(f"titanic_image_verify: {program} could not be run: {error}") from error
    if done.returncode:
        told = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        why = next(
            (line for line in reversed(told) if line.startswith("Error: ")), told[-1] if told else "no reason told"
        )
        raise SignatureError(f"titanic_image_verify: {what} is refused: {why.removeprefix('Error: ')}. {REMEDY}")
    return done.stdout


@contextmanager
def _configuration(name: str, login: Mapping[str, str] | None) -> Iterator[dict[str, str]]:
    """The environment in which cosign may read the registry; with a login, of a configuration that is removed again."""
    if not login:
        yield dict(os.environ)
        return
    with tempfile.TemporaryDirectory() as directory:
        token = base64.b64encode(f"{login['username']}:{login['password']}".encode()).decode()
        path = Path(directory, "config.json")
        path.touch(0o600)
        path.write_text(json.dumps({"auths": {name.partition("/")[0]: {"auth": token}}}), encoding="utf-8")
        yield {**os.environ, "DOCKER_CONFIG": directory}
