# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An image is built once for one input, is recorded whole or not at all, and its context is sent only when needed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import json_bytes, tree_hash
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.client import DockerClient
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.image_build import Source, platform_problem
from ansible_collections.whitestar.deploy.plugins.module_utils.docker.runtime import ComposeRuntime
from ansible_collections.whitestar.deploy.plugins.module_utils.host.state import State
from ansible_collections.whitestar.deploy.plugins.plugin_utils.build_context import BuildContext
from ansible_collections.whitestar.deploy.tests.helpers import DOCKERFILE, build_context, run_ansible, run_module, spool
from ansible_collections.whitestar.deploy.tests.index_helpers import PASSWORD, WHEEL, private_index

# As the service's Dockerfile does, with a package that one index alone has.
FROM_AN_INDEX = """FROM python:3.13-slim-trixie
ENV PIP_CONFIG_FILE=/run/secrets/pip_conf
RUN --mount=type=secret,id=pip_conf --mount=type=secret,id=pip_cert --mount=type=bind,target=/context \\
    pip install --no-cache-dir --require-hashes --requirement /context/requirements.txt --target /app \\
    && echo '{"version": "1.2.3", "schema": {"required": "1", "oldest_tolerated": "1"}}' > /app/facts
"""
# A stage that holds what is kept beside the image's record.
SBOM = "FROM scratch AS sbom\nCOPY code /sbom.cdx.json\n"


@pytest.fixture
def context(place: Path) -> Path:
    return build_context(place)


class Builder:
    """Tasks that build the context, each in one run of Ansible with others."""

    def __init__(self, place: Path, options: dict[str, Any]) -> None:
        self.place = place
        self.state = State(place / "state")
        self.engine = DockerClient.of(options)
        self.options = options
        self.repository = f"{options['project']}-image"

    def task(self, *, check: bool = False, **options: Any) -> dict[str, Any]:
        given = {
            "engine": self.options,
            "directory": str(self.state.images),
            "context": str(self.place / "context"),
            "dockerfile": str(self.place / "Dockerfile"),
            "exclude": ["tests"],
            "repository": self.repository,
            "describe": ["cat", "/app/facts"],
        }
        return {"whitestar.deploy.compose_image": given | options, "check_mode": check, "diff": True}

    def write(self, path: str, text: str) -> dict[str, Any]:
        """A task that does so, without a module that Ansible would have to send."""
        with tempfile.NamedTemporaryFile("w", dir=self.place, delete=False) as file:
            file.write(text)
        return self.call(f"'cp {file.name} {self.place / path}'")

    def call(self, command: str) -> dict[str, Any]:
        """A task that runs a command on the controller; an expression."""
        return {"ansible.builtin.debug": {"msg": f"{{{{ lookup('ansible.builtin.pipe', {command}) }}}}"}}

    def write_now(self, path: str, text: str) -> None:
        (self.place / path).write_text(text)

    def run(self, *tasks: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
        """What each task gave back, failed or not, and all that Ansible said."""
        names = [f"result{number}" for number in range(len(tasks))]
        every = [task | {"register": name, "ignore_errors": True} for task, name in zip(tasks, names, strict=True)]
        keep = {"ansible.builtin.debug": {"msg": f"RESULTS {{{{ [{', '.join(names)}] | to_json | b64encode }}}}"}}
        left = self.place / "tmp"
        left.mkdir(exist_ok=True)
        done = run_ansible(self.place, {"tasks": [*every, keep], "vars": {"ansible_remote_tmp": str(left)}}, "-vvv")
        assert done.returncode == 0, done.stdout
        assert list(left.iterdir()) == [], "arguments of a module, which may be secret, and a context"
        assert "Traceback" not in done.stdout
        (found,) = re.findall(r"RESULTS ([\w+/=]+)", done.stdout)
        return json.loads(base64.b64decode(found)), done.stdout

    def tags(self) -> list[str]:
        """In an order of ours: all images are of 1980, so that the engine has none."""
        return sorted(self.engine.run("image", "ls", "--format", "{{.Tag}}", self.repository).split())


@pytest.fixture
def builder(place: Path, context: Path, engine: dict[str, Any]) -> Builder:
    return Builder(place, engine)


def test_twelve_steps(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever builder the environment names; and an image that somebody has removed is built again."""
    for name in ("BUILDX_BUILDER", "BUILDX_CONFIG", "BUILDKIT_HOST", "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"):
        monkeypatch.setenv(name, "nonesuch")
    remove = f"docker --host unix://{builder.engine.socket} image rm {builder.repository}:1.2.3 {builder.repository}:"
    results, said = builder.run(
        builder.task(check=True),
        builder.task(),
        builder.task(check=True),
        builder.task(),
        builder.write("context/tests/test_code", "assert False"),
        builder.task(),
        builder.write("context/code", "print('changed')"),
        builder.task(check=True),
        builder.task(),
        builder.task(check=True),
        builder.task(),
        builder.call(f"'{remove}' ~ result8.image.identity"),
        builder.task(check=True),
        builder.task(),
    )
    seen, done, seen_again, again, _, other_test, _, seen_change, changed, *last, _, seen_gone, rebuilt = results
    assert seen["changed"]
    assert seen["image"]["reference"] == ""
    assert done["changed"]
    image = done["image"]
    assert image["identity"] == seen["image"]["identity"]
    assert image["description"]["version"] == "1.2.3"
    assert done["diff"] == {"before": "", "after": f"{builder.repository}:{image['identity']}\n"}
    for result in (seen_again, again, other_test):
        assert not result["changed"]
        assert result["image"] == image
    assert seen_change["changed"]
    assert changed["changed"]
    newer = changed["image"]
    assert newer["identity"] == seen_change["image"]["identity"] != image["identity"]
    assert newer["reference"] != image["reference"]
    assert [result["changed"] for result in (*last, seen_gone, rebuilt)] == [False, False, True, True]
    assert rebuilt["image"]["identity"] == newer["identity"]
    # The three builds had the context sent, nothing else did.
    sent = [line for line in said.splitlines() if " PUT " in line and "context.tar.gz" in line]
    assert len(sent) == 3, sent
    assert builder.tags() == sorted([image["identity"], newer["identity"], "1.2.3"])
    kept = builder.engine.run("run", "--rm", newer["reference"], "sh", "-c", "cat /app/code; ls /app")
    assert kept == "print('changed')code\nfacts\n"
    assert sorted(path.name for path in builder.state.images.iterdir()) == sorted(
        [image["identity"], newer["identity"]]
    )

    # Both have the version 1.2.3: when the older one is discarded, the newer one keeps the name.
    host = ComposeRuntime(DockerClient.of(builder.options), builder.state)
    host.discard_image(image["identity"])
    assert not host.has_image(image["reference"])
    assert builder.tags() == sorted([newer["identity"], "1.2.3"])
    host.discard_image(newer["identity"])
    assert builder.tags() == []
    assert list(builder.state.images.iterdir()) == []


def test_an_argument_that_the_dockerfile_has_not_is_refused_by_name(builder: Builder) -> None:
    before = builder.tags()
    results, said = builder.run(
        builder.task(check=True, build_arguments={"VERSION": "2"}),
        builder.task(build_arguments={"VERSION": "2", "version": ["2"]}),
    )
    has_not = "titanic_image_build_arguments: the Dockerfile has no ARG VERSION; it has version. Correct the name"
    assert all(has_not in result["msg"] for result in results)
    assert "titanic_image_build_arguments: version is no text or number" in results[1]["msg"]
    assert "context.tar.gz" not in said
    assert (builder.state.images.exists(), builder.tags()) == (False, before)


def test_one_source_is_one_image_whenever_and_wherever_it_is_built(builder: Builder) -> None:
    """And another source is another one, though its files are as long as those that BuildKit has been sent before."""
    builder.write_now("Dockerfile", "FROM debian:trixie-slim\nWORKDIR /srv\nCOPY . /app\n")
    (builder.place / "context/part").mkdir()

    def build(number: int, text: str, *options: str) -> dict[str, Any]:
        builder.write_now("context/part/code", text)
        for path in (builder.place / "context").rglob("*"):
            os.utime(path, (number, number))
        archive, directory = builder.place / "context.tar.gz", builder.place / f"build{number}"
        dockerfiles = {"Dockerfile": builder.place / "Dockerfile"}
        BuildContext(builder.place / "context", [], dockerfiles, {}, []).pack(archive)
        source = Source(directory, {}, [])
        source.unpack(str(archive))
        source.build(builder.engine, *options, "--load", "--tag", f"{builder.repository}:{number}", seconds=60)
        return builder.engine.image(f"{builder.repository}:{number}") or {}

    first = build(1, "print('hello')\n")
    assert first["Created"].startswith("1980-01-01")
    time.sleep(1.1)  # times of files have seconds
    assert build(2, "print('hello')\n", "--no-cache")["Id"] == first["Id"]
    assert build(3, "print('hallo')\n")["Id"] != first["Id"]


def test_packages_come_from_the_index_of_pips_configuration(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    (bridge,) = json.loads(builder.engine.run("network", "inspect", "bridge"))
    with private_index(bridge["IPAM"]["Config"][0]["Gateway"]) as index:
        monkeypatch.setattr(os, "environ", index.account(builder.place / "home"))
        host = urlsplit(index.address).hostname
        with (builder.place / "home/.config/pip/pip.conf").open("a") as file:
            file.write(f"trusted-host = {host}\n")
        builder.write_now("Dockerfile", FROM_AN_INDEX)
        # Of the run's own: secrets make no difference to what BuildKit has done already.
        builder.write_now("context/requirements.txt", f"# {builder.repository}\n{index.lock}")
        (done,), said = builder.run(builder.task(describe=["cat", "/app/facts"]))
    assert f"/{WHEEL}" in index.asked
    reference = done["image"]["reference"]
    kept = builder.engine.run("run", "--rm", reference, "sh", "-c", "ls /app; ! cat /run/secrets/*")
    assert "titanic_mirrored.py" in kept
    archive = builder.place / "image.tar"
    builder.engine.run("save", "--output", str(archive), reference)
    papers = json.dumps([done, builder.engine.image(reference)]) + builder.engine.run(
        "history", "--no-trunc", reference
    )
    papers += (Path(done["image"]["directory"]) / "provenance.json").read_text()
    assert PASSWORD.encode() not in archive.read_bytes()
    assert PASSWORD not in papers + said
    ComposeRuntime(DockerClient.of(builder.options), builder.state).discard_image(done["image"]["identity"])


def test_an_image_has_papers(builder: Builder) -> None:
    builder.write_now("Dockerfile", SBOM + DOCKERFILE)
    (done,), _ = builder.run(builder.task(build_arguments={"version": "5.6.7"}))
    image = done["image"]
    directory = Path(image["directory"])
    assert directory.parent == builder.state.images
    assert (directory / "sbom.cdx.json").read_text() == "print('hello')\n"
    statement = json.loads((directory / "provenance.json").read_text())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    (subject,) = statement["subject"]
    assert (subject["name"], f"sha256:{subject['digest']['sha256']}") == (builder.repository, image["reference"])
    build, run = statement["predicate"]["buildDefinition"], statement["predicate"]["runDetails"]
    assert build["externalParameters"] == {"buildArguments": {"version": "5.6.7"}, "platforms": []}
    context, dockerfile, base = build["resolvedDependencies"]
    assert context["digest"]["sha256"] == tree_hash(builder.place / "context", ["tests"])
    assert dockerfile["digest"]["sha256"] == hashlib.sha256((SBOM + DOCKERFILE).encode()).hexdigest()
    found = builder.engine.image("debian:trixie-slim")
    assert found
    known = {digest.rpartition(":")[2] for digest in [found["Id"], *found["RepoDigests"]]}
    assert base["name"].endswith("debian:trixie-slim")
    assert base["digest"]["sha256"] in known
    sbom = hashlib.sha256(b"print('hello')\n").hexdigest()
    assert run["byproducts"] == [{"name": "sbom.cdx.json", "digest": {"sha256": sbom}}]
    assert run["metadata"]["startedOn"] <= run["metadata"]["finishedOn"]
    ComposeRuntime(DockerClient.of(builder.options), builder.state).discard_image(image["identity"])
    assert not directory.exists()


def test_an_image_is_judged_once_by_each_command(builder: Builder) -> None:
    builder.write_now("Dockerfile", SBOM + DOCKERFILE)
    verdicts = builder.place / "verdicts"
    good = ["sh", "-c", f"cat {{sbom}} >> {verdicts}"]
    other = ["sh", "-c", f"echo {{image}} >> {verdicts}"]
    bad = ["sh", "-c", "echo CVE-1912-0415 in {image} >&2; exit 3"]
    before = builder.tags()
    (seen, refused, gone), _ = builder.run(
        builder.task(check=True, scan_command=good),
        builder.task(scan_command=bad),
        builder.task(scan_command=["/nowhere/scanner"]),
    )
    assert seen["changed"]
    assert "the release is refused, nothing else was touched: titanic_image_scan_command: " in refused["msg"]
    assert "CVE-1912-0415 in sha256:" in refused["msg"]
    assert "/nowhere/scanner cannot be run on the target (No such file or directory)" in gone["msg"]
    assert (list(builder.state.images.iterdir()), builder.tags(), verdicts.exists()) == ([], before, False)
    (first, again, seen, judged, seen_again, refused), said = builder.run(
        builder.task(scan_command=good),
        builder.task(scan_command=good),
        builder.task(check=True, scan_command=other),
        builder.task(scan_command=other),
        builder.task(check=True, scan_command=other),
        builder.task(scan_command=bad),
    )
    changed = [result["changed"] for result in (first, again, seen, judged, seen_again)]
    assert changed == [True, False, True, True, False]
    assert judged["image"] == first["image"]
    sent = [line for line in said.splitlines() if " PUT " in line and "context.tar.gz" in line]
    assert len(sent) == 1, sent
    assert verdicts.read_text() == f"print('hello')\n{first['image']['reference']}\n"
    assert refused["failed"]
    host = ComposeRuntime(DockerClient.of(builder.options), builder.state)
    assert host.has_image(first["image"]["reference"]), "what was there before the verdict may serve"
    host.discard_image(first["image"]["identity"])


def test_proxies_of_the_client_reach_the_build_and_not_the_image(builder: Builder, proxied: dict[str, Any]) -> None:
    builder.write_now("Dockerfile", f'{DOCKERFILE}RUN test "$HTTP_PROXY" = http://127.0.0.1:9\n')
    told: dict[str, Any] = {"describe": ["sh", "-c", 'printf \'{"version": "%s"}\' "$HTTP_PROXY"']}
    (done,), _ = builder.run(builder.task(engine=builder.options | proxied, **told))
    assert done["image"]["description"] == {"version": ""}
    ComposeRuntime(DockerClient.of(builder.options), builder.state).discard_image(done["image"]["identity"])


def test_a_gate_for_a_bill_that_is_not_there_is_refused(builder: Builder) -> None:
    (none, _, other), _ = builder.run(
        builder.task(scan_command=["true", "{sbom}"]),
        builder.write("Dockerfile", "FROM scratch AS sbom\nCOPY code /other\n" + DOCKERFILE),
        builder.task(),
    )
    assert "there is no bill of materials. Give the Dockerfile a stage sbom, or use {image}" in none["msg"]
    assert "the Dockerfile's stage sbom holds no file sbom.cdx.json" in other["msg"]
    assert list(builder.state.images.iterdir()) == []


def test_platforms_that_cannot_be_are_refused_before_anything_is_sent(builder: Builder) -> None:
    version = builder.engine.get("/version")
    own = f"{version['Os']}/{version['Arch']}"
    (foreign, unknown, seen, done, again), said = builder.run(
        builder.task(platforms=["linux/s390x"]),
        builder.task(platforms=[own, "linux/wasm-of-nobody"]),
        builder.task(platforms=[own], check=True),
        builder.task(platforms=[own]),
        builder.task(platforms=[own]),
    )
    refused = "the release is refused, nothing else was touched: titanic_image_platforms: "
    assert foreign["msg"] == f"{refused}{own}, which this engine runs, is not among linux/s390x. Add it."
    assert f"{refused}the builder default cannot make linux/wasm-of-nobody (only " in unknown["msg"]
    assert "QEMU and binfmt_misc" in unknown["msg"]
    assert [result["changed"] for result in (seen, done, again)] == [True, True, False]
    assert len([line for line in said.splitlines() if " PUT " in line and "context.tar.gz" in line]) == 1
    ComposeRuntime(DockerClient.of(builder.options), builder.state).discard_image(done["image"]["identity"])


def test_an_engine_that_keeps_one_platform_is_told_of(builder: Builder) -> None:
    version = builder.engine.get("/version")
    builtin = builder.engine.run("buildx", "inspect")
    if version["Arch"] != "amd64" or "linux/386" not in builtin or "Driver:        docker\n" not in builtin:
        pytest.skip("only an engine on amd64 with its own builder makes a second platform without emulation")
    if "containerd" in str(builder.engine.get("/info").get("DriverStatus")):
        pytest.skip("this engine keeps several platforms")
    problem = platform_problem(builder.engine, ["linux/amd64", "linux/386"])
    assert problem.startswith("the builder default keeps one platform for each image. Turn on the engine's containerd")


def test_a_registry_that_does_not_take_the_login_is_named_and_nothing_is_built(builder: Builder) -> None:
    login = {"username": "alice", "password": "planted-registry-5f"}
    (result,), _ = builder.run(builder.task(repository="127.0.0.1:1/titanic", push=True, login=login))
    assert "titanic_image_registry_login: 127.0.0.1:1 does not take it: " in result["msg"]
    assert "connection refused" in result["msg"]
    assert login["password"] not in result["msg"]
    assert list(builder.state.images.iterdir()) == []


def test_an_image_of_somebody_s_keeps_its_name(builder: Builder) -> None:
    """That of a version is for people alone; without that of its content a release is refused."""
    engine = builder.engine
    foreign = builder.place / "foreign"
    foreign.mkdir()
    (foreign / "Dockerfile").write_text("FROM caddy:2\nLABEL owner=somebody\n")
    version, content = f"{builder.repository}:1.2.3", f"{builder.repository}:{{}}"
    engine.run("buildx", "build", "--load", "--provenance", "false", "--tag", version, str(foreign))
    theirs = str((engine.image(version) or {})["Id"])
    (seen,), _ = builder.run(builder.task(check=True))
    content = content.format(seen["image"]["identity"])
    engine.run("tag", version, content)
    (refused,), _ = builder.run(builder.task())
    message = f"titanic_image_repository: the engine has another image {content}, which is not of this deployment"
    assert message in refused["msg"]
    assert {str((engine.image(name) or {})["Id"]) for name in (version, content)} == {theirs}
    engine.run("image", "rm", content)
    (done, again), _ = builder.run(builder.task(), builder.task())
    assert done["image"]["reference"] == str((engine.image(content) or {})["Id"]) != theirs
    assert not again["changed"]
    assert str((engine.image(version) or {})["Id"]) == theirs
    ComposeRuntime(engine, builder.state).discard_image(seen["image"]["identity"])
    assert (engine.image(content), str((engine.image(version) or {})["Id"])) == (None, theirs)
    engine.run("image", "rm", version)


def test_a_release_that_cannot_be_built_leaves_nothing_and_says_why(builder: Builder) -> None:
    before = builder.tags()
    cases = {
        "RUN echo '[1]' > /app/facts\n": "'cat /app/facts' in the image must print a JSON object, it printed: [1]",
        "RUN rm /app/facts\n": "cat: /app/facts: No such file",
    }
    tasks = [task for line in cases for task in (builder.write("Dockerfile", DOCKERFILE + line), builder.task())]
    results, _ = builder.run(*tasks)
    for result, words in zip(results[1::2], cases.values(), strict=True):
        assert result["failed"]
        assert "the release could not be built, nothing else was touched: " in result["msg"]
        assert words in result["msg"]
    assert list(builder.state.images.iterdir()) == []
    assert builder.tags() == before


def test_a_release_that_cannot_be_built_leaves_its_evidence(builder: Builder) -> None:
    failure = {"state_directory": str(builder.state.root), "by": "alice@laptop"}
    builder.write_now("Dockerfile", f"{SBOM}{DOCKERFILE}RUN seq 1 900; echo no such luck >&2; exit 3\n")
    foreign = builder.task(platforms=["linux/s390x"], failure=failure)
    (built, told, missing), _ = builder.run(
        builder.task(failure=failure), foreign, builder.task(failure=failure, check=True)
    )
    assert "evidence" not in told["msg"], "what cannot be asked for is no failed release"
    assert not missing["failed"]
    (entry,) = builder.state.ledger().entries
    path = builder.state.failure_reports / f"000001-{entry.release}.txt"
    assert built["msg"].endswith(f"\nevidence: {path}")
    assert (entry.outcome, entry.image, entry.by, entry.why) == ("failed", entry.release, "alice@laptop", "deploy")
    text = path.read_text()
    assert "no such luck" in text
    assert re.search(r"^#\d+ [\d.]+ 1$", text, re.MULTILINE), "all of the builder's words"
    assert f'"repository": "{builder.repository}"' in text
    assert [path.name for path in builder.state.images.iterdir()] == []
    builder.write_now("Dockerfile", SBOM + DOCKERFILE)
    (judged,), _ = builder.run(builder.task(failure=failure, scan_command=["sh", "-c", "echo CVE-1912-0415; exit 1"]))
    assert "CVE-1912-0415" in Path(judged["msg"].rpartition("evidence: ")[2]).read_text()
    assert [entry.outcome for entry in builder.state.ledger().entries] == ["failed", "failed"]


def test_what_is_not_on_this_machine_is_named(builder: Builder) -> None:
    tasks = [builder.task(context="/nowhere"), builder.task(dockerfile="/nowhere/Dockerfile")]
    results, _ = builder.run(*tasks)
    assert (
        results[0]["msg"]
        == "titanic_image_context: there is no directory /nowhere on this machine. Name the one that holds the project."
    )
    assert "/nowhere/Dockerfile" in results[1]["msg"]
    assert not builder.state.root.exists()


def test_a_record_without_its_engine_is_a_failure_and_stays(builder: Builder) -> None:
    directory = builder.state.images / "aaaaaaaaaaaa"
    directory.mkdir(parents=True)
    recorded = {"identity": "aaaaaaaaaaaa", "reference": "x", "tags": [], "repository": builder.repository}
    (directory / "image.json").write_bytes(json_bytes(recorded | {"pushed": False}))
    before = spool(builder.state.root)
    given = builder.task()["whitestar.deploy.compose_image"] | {"identity": "aaaaaaaaaaaa"}
    given["engine"] = builder.options | {"socket": f"{builder.place}/none.sock"}
    for check in (True, False):
        message = run_module("compose_image", given, check=check).message
        assert f"nothing else was touched: no Docker engine answers at {builder.place}/none.sock" in message
    assert spool(builder.state.root) == before
