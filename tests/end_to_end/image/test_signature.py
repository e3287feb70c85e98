"""A release that was not signed as asked for is refused before anything is touched, by the real cosign.

But for the last test no engine is needed: what is in the registry here is a manifest with an empty image.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from ansible_collections.whitestar.deploy.plugins.module_utils.release.signature import (
    SignatureError,
    require_source,
    source_digest,
    verified_image,
)
from ansible_collections.whitestar.deploy.plugins.plugin_utils.build_context import BuildContext

from bin import cosign, image
from tests.deployment import EVERY_TASK, free_port
from tests.end_to_end.image.conftest import Docker
from tests.end_to_end.image.test_registry import PROGRAM, START_SECONDS, asked
from tests.end_to_end.switch.site import ComposeSite, new_site
from tests.engine import Engine

REPOSITORY, REF = "https://git.example.org/titanic", "refs/heads/main"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EXCLUDE = yaml.safe_load(image.DEFAULTS.read_text())["titanic_image_exclude"]


@pytest.fixture(scope="module")
def program() -> Path:
    """The real cosign; where nothing may be left out, it has to be there."""
    try:
        return cosign.program()
    except cosign.FetchError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@dataclass(frozen=True)
class Registry:
    """A registry on this machine."""

    address: str

    def send(self, method: str, path: str, body: bytes = b"", kind: str = "application/octet-stream") -> str:
        """A request that must succeed; where it leads to."""
        connection = http.client.HTTPConnection(self.address, timeout=10)
        try:
            connection.request(method, path, body, {"Content-Type": kind})
            answer = connection.getresponse()
            assert answer.status in (200, 201, 202), answer.read()
            return (answer.getheader("Location") or "").split(self.address, 1)[-1]
        finally:
            connection.close()

    def push(self, repository: str, tag: str, text: str) -> str:
        """An image whose configuration holds a text, under a tag; its reference by digest."""
        blob = json.dumps({"text": text}).encode()
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        place = self.send("POST", f"/v2/{repository}/blobs/uploads/")
        self.send("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", blob)
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": len(blob)}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}
        text_of_it = json.dumps(manifest).encode()
        self.send("PUT", f"/v2/{repository}/manifests/{tag}", text_of_it, MANIFEST)
        return f"{self.address}/{repository}@sha256:{hashlib.sha256(text_of_it).hexdigest()}"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    if not PROGRAM.is_file():
        pytest.skip("the lab's registry is needed: make lab")
    directory, address = tmp_path_factory.mktemp("registry"), f"127.0.0.1:{free_port()}"
    settings = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": address},
    }
    (directory / "config.json").write_text(json.dumps(settings))
    command = [str(PROGRAM), "serve", str(directory / "config.json")]
    with subprocess.Popen(command, env={"OTEL_TRACES_EXPORTER": "none"}, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + START_SECONDS
        while asked(address, "/v2/", login=False) != 200:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield Registry(address)
        process.terminate()


@pytest.fixture(scope="module")
def keys(program: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Private keys by whose they are; each public one lies beside its own with .pub for .key."""
    found = {}
    for name in ("ours", "others"):
        place = tmp_path_factory.mktemp(name)
        environment = {**os.environ, "COSIGN_PASSWORD": "planted"}
        subprocess.run([str(program), "generate-key-pair"], cwd=place, env=environment, check=True, capture_output=True)
        found[name] = place / "cosign.key"
    return found


class Signer:
    """Signs as `make sign` does, for a checkout that is somewhere else."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Path], program: Path) -> None:
        self.place, self.monkeypatch, self.keys, self.program = place, monkeypatch, keys, program
        monkeypatch.setenv("COSIGN_PASSWORD", "planted")
        monkeypatch.setattr(image, "IMAGE", place / "image.json")
        monkeypatch.setattr(image, "BUNDLE", place / "service.sigstore.json")
        monkeypatch.setattr(image, "require_committed", lambda: None)

    def wanted(self, **more: str) -> dict[str, str]:
        """What a deployment asks for."""
        key = str(self.keys["ours"].with_suffix(".pub"))
        return {"program": str(self.program), "key": key, "repository": REPOSITORY, "ref": REF, **more}

    def of(self, whose: str, repository: str, ref: str) -> None:
        """Whose key signs, and where the source is from."""
        self.monkeypatch.setenv("COSIGN_KEY", str(self.keys[whose]))
        self.monkeypatch.setattr(image, "origin", lambda _: {"uri": f"git+{repository}@{ref}"})

    def sign(self, reference: str, whose: str = "ours", repository: str = REPOSITORY, ref: str = REF) -> None:
        """Sign an image of the registry."""
        self.of(whose, repository, ref)
        statement = {"predicate": {"buildDefinition": {"buildType": "test", "externalParameters": {}}}}
        (self.place / "provenance.json").write_text(json.dumps(statement))
        image.IMAGE.write_text(json.dumps({"reference": reference, "directory": str(self.place)}))
        image.sign()

    def sign_source(self, whose: str = "ours", repository: str = REPOSITORY, ref: str = REF) -> Path:
        """Sign the source of this checkout; the file with what was signed."""
        self.of(whose, repository, ref)
        image.sign_source()
        return image.BUNDLE


@pytest.fixture
def signer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Path], program: Path) -> Signer:
    return Signer(tmp_path, monkeypatch, keys, program)


def test_an_image_is_taken_by_the_digest_that_was_signed(registry: Registry, signer: Signer) -> None:
    reference = registry.push("held", "1", "good")
    signer.sign(reference)
    assert verified_image(f"{registry.address}/held:1", signer.wanted()) == reference


def test_five_images_of_five_are_refused(registry: Registry, signer: Signer) -> None:
    """Unsigned; signed by another; its tag moved after signing; of another repository; its digest edited."""
    name = registry.address
    registry.push("unsigned", "1", "one")
    signer.sign(registry.push("others", "1", "two"), whose="others")
    signer.sign(registry.push("moved", "1", "three"))
    registry.push("moved", "1", "another")
    signer.sign(registry.push("elsewhere", "1", "four"), repository="https://git.example.org/fork")
    edited = registry.push("edited", "1", "five")
    signer.sign(edited)
    wrong_digest = edited[:-1] + ("0" if edited[-1] != "0" else "1")
    for image_name, why in {
        f"{name}/unsigned:1": "no signatures found",
        f"{name}/others:1": "signature",
        f"{name}/moved:1": "no signatures found",
        f"{name}/elsewhere:1": "its repository is https://git.example.org/fork",
        wrong_digest: "is refused",
    }.items():
        with pytest.raises(SignatureError, match="titanic_image_verify: ") as refused:
            verified_image(image_name, signer.wanted())
        assert why in str(refused.value), image_name


def test_five_sources_of_five_are_refused(signer: Signer, tmp_path: Path) -> None:
    """Unsigned; signed by another; changed after signing; of another branch; its statement edited."""
    requirements = image.SOURCE / "requirements.txt"
    digest = source_digest(image.SOURCE, requirements, EXCLUDE)
    bundle = str(image.BUNDLE)
    wanted = signer.wanted(provenance=bundle)

    def refused(why: str, of: str = digest) -> None:
        with pytest.raises(SignatureError, match="titanic_image_verify: ") as error:
            require_source(of, wanted)
        assert why in str(error.value)

    refused("has no signed provenance")
    signer.sign_source(whose="others")
    refused("is refused")
    signer.sign_source(ref="refs/heads/mine")
    refused("its ref is refs/heads/mine")
    signer.sign_source()
    require_source(digest, wanted)
    changed = tmp_path / "service"
    shutil.copytree(image.SOURCE, changed)
    (changed / "pyproject.toml").write_text("# changed\n")
    refused("does not match", source_digest(changed, requirements, EXCLUDE))
    text = json.loads(image.BUNDLE.read_text())
    payload = text["dsseEnvelope"]["payload"]
    text["dsseEnvelope"]["payload"] = ("B" if payload[20] != "B" else "C").join((payload[:20], payload[21:]))
    image.BUNDLE.write_text(json.dumps(text))
    refused("is refused")


def test_a_site_is_refused_before_anything_of_a_target_is_touched(
    registry: Registry, signer: Signer, tmp_path: Path
) -> None:
    """With each provider, whose engine or cluster is not even asked: there is none here."""
    inputs = {"context": str(image.SOURCE), "dockerfile": str(image.ROOT / "Dockerfile"), "exclude": EXCLUDE}
    registry.push("unsigned", BuildContext.of(inputs).identity(), "bad")
    image_settings = {
        "titanic_image_context": str(image.SOURCE),
        "titanic_image_dockerfile": str(image.ROOT / "Dockerfile"),
        "titanic_image_repository": f"{registry.address}/unsigned",
        "titanic_image_push": True,
        "titanic_engine": {"socket": "/none.sock", "program": "docker"},
        "titanic_cluster": {"kubeconfig": "/none"},
    }
    hosts = {
        provider: {
            **(image_settings if provider != "local" else {"titanic_image_context": str(image.SOURCE)}),
            "titanic_provider": provider,
            "titanic_state_directory": str(tmp_path / f"state-{provider}"),
            "titanic_api_port": free_port(),
            "titanic_image_verify": signer.wanted(provenance="/none"),
        }
        for provider in ("local", "compose", "kubernetes")
    }
    everywhere = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"titanic": {"hosts": hosts, "vars": everywhere}}))
    done = subprocess.run(
        ["ansible-playbook", "site.yml", "-i", str(inventory)],
        cwd=image.ROOT,
        env={**os.environ, **EVERY_TASK, "ANSIBLE_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    for provider in hosts:
        assert f"fatal: [{provider}]: FAILED" in done.stdout
        assert not (tmp_path / f"state-{provider}").exists(), provider
        told = done.stdout.partition(f"fatal: [{provider}]: FAILED")[2].partition("fatal: ")[0]
        assert "Refused before anything was touched" in told, provider
        assert ("has no signed provenance" if provider == "local" else "no signatures found") in told, told


def test_a_run_names_the_image_by_its_inputs_and_goes_on_with_what_was_signed(
    registry: Registry, signer: Signer, tmp_path: Path
) -> None:
    inputs = {"context": str(image.SOURCE), "dockerfile": str(image.ROOT / "Dockerfile"), "exclude": EXCLUDE}
    reference = registry.push("signed", BuildContext.of(inputs).identity(), "good")
    signer.sign(reference)
    options = {**inputs, "kind": "image", "repository": f"{registry.address}/signed", "verify": signer.wanted()}
    tasks = [
        {"whitestar.deploy.image_signature_info": options, "register": "found"},
        {"ansible.builtin.debug": {"var": "found.reference"}},
    ]
    path = tmp_path / "play.json"
    path.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    command = ["ansible-playbook", str(path)]
    environment = {**os.environ, **EVERY_TASK}
    done = subprocess.run(command, cwd=image.ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert reference in done.stdout


def test_compose_pulls_the_digest_that_was_signed_and_nothing_else(
    docker: Docker, registry: Registry, signer: Signer, tmp_path: Path
) -> None:
    with new_site(Engine.found()) as site:
        assert isinstance(site, ComposeSite)
        repository = f"{registry.address}/{site.project}"
        (tmp_path / "push.json").write_text(
            json.dumps({"titanic_image_repository": repository, "titanic_image_push": True})
        )
        (tmp_path / "verify.json").write_text(json.dumps({"titanic_image_verify": signer.wanted()}))
        build = ["-e", f"@{tmp_path / 'push.json'}"]
        verified = ["--tags", "image", *build, "-e", f"@{tmp_path / 'verify.json'}"]
        try:
            site.succeed(*build, playbook="playbooks/build-image.yml")
            (record,) = site.state.glob("images/*/image.json")
            reference = json.loads(record.read_text())["reference"]
            assert "no signatures found" in site.refuse(*verified)
            signer.sign(reference)
            # As on a machine that has not built it.
            shutil.rmtree(record.parent)
            site.engine.clear(site.project, repository)
            assert site.changed(site.succeed(*verified)) == 1
            assert json.loads(record.read_text())["reference"] == reference
            assert not (record.parent / "provenance.json").exists(), "it was built"
            assert site.changed(site.succeed(*verified)) == 0
            registry.push(site.project, record.parent.name, "moved")
            before = record.read_bytes()
            assert "no signatures found" in site.refuse(*verified)
            assert record.read_bytes() == before
        finally:
            site.engine.clear(site.project, repository)
