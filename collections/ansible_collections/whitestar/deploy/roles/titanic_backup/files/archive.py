# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Encrypts what a local target keeps of its database in a repository, and reads it again; PostgreSQL calls it too.

``python3 archive.py SETTINGS COMMAND ...``; SETTINGS is a JSON file with ``repository`` (its directory), ``key_file``,
``compression`` (``zstd`` or ``none``) and ``wal_mebibytes``. Each object of a repository is one file: a header with a
salt, and frames of at most 1 MiB, each with its length. A frame is AES-256-GCM (NIST SP 800-38D) under a key of its
own for each file, by HKDF (RFC 5869) of the secret, the salt and the object's name; its nonce counts the frames and
says which is the last (the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár, 2015). So a bit that has
changed, a frame that is missing, a file under another's name and another key are all found.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

MAGIC = b"TITANIC1"
METHODS = ("none", "zstd")
SALT_BYTES, FRAME_BYTES, TAG_BYTES = 32, 2**20, 16
# How many threads compress a base backup, beside the one that reads, encrypts and writes.
THREADS = 2
# PostgreSQL takes any status from 126 on for the end: of a shutdown's archiving, and of a recovery.
FAILED, FINAL = 1, 200
# What a file may take; and of a server that is told to stop, what a file and what all that is left may take.
PUSH_SECONDS, LAST_PUSH_SECONDS, STOP_SECONDS = 10.0, 5.0, 15.0


class DamagedError(RuntimeError):
    """An object is not what was written; the message says how."""


class Sealed:
    """Objects of one repository, by name."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.repository = Path(settings["repository"])
        self.method = settings["compression"]
        self.secret = Path(settings["key_file"]).read_bytes().strip()

    def path(self, name: str) -> Path:
        """Where an object is."""
        return self.repository / name

    def write(self, name: str, chunks: Iterator[bytes]) -> int:
        """Have the object wholly there or not at all; how many bytes it takes. Raises OSError."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with Writer(self, name, temporary) as writer:
                for chunk in chunks:
                    writer.write(chunk)
            temporary.replace(path)
            sync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return path.stat().st_size

    def read(self, name: str) -> Iterator[bytes]:
        """What was written. Raises OSError, and DamagedError as soon as that is seen."""
        with self.path(name).open("rb") as stream:
            header = stream.read(len(MAGIC) + 1 + SALT_BYTES)
            if len(header) < len(MAGIC) + 1 + SALT_BYTES or not header.startswith(MAGIC):
                raise DamagedError("it is no object of ours, or was cut off at its beginning")
            if header[len(MAGIC)] >= len(METHODS):
                raise DamagedError("its header is damaged")
            frames = self.frames(stream, cipher(self.secret, header, name))
            yield from decompressed(frames) if METHODS[header[len(MAGIC)]] == "zstd" else frames

    def frames(self, stream: IO[bytes], aead: Any) -> Iterator[bytes]:
        """The frames of a file."""
        from cryptography.exceptions import InvalidTag

        number, last = 0, False
        while not last:
            length = stream.read(4)
            size = int.from_bytes(length, "big") & 0x7FFFFFFF
            frame = stream.read(size)
            if len(length) < 4 or len(frame) < size or size > FRAME_BYTES + TAG_BYTES:
                raise DamagedError(f"it was cut off or damaged in frame {number}")
            last = bool(length[0] & 0x80)
            try:
                yield aead.decrypt(nonce(number, last=last), frame, length)
            except InvalidTag:
                raise DamagedError(f"frame {number} is damaged, or the key is another") from None
            number += 1
        if stream.read(1):
            raise DamagedError("there is more than was written")


class Writer:
    """A new file for the object of this name; a directory whose name begins with a dot loses that in the end."""

    def __init__(self, sealed: Sealed, name: str, path: Path, threads: int = 0) -> None:
        header = MAGIC + bytes([METHODS.index(sealed.method)]) + os.urandom(SALT_BYTES)
        self.aead = cipher(sealed.secret, header, name.replace("/.", "/"))
        self.pack: Any = None
        if sealed.method == "zstd":
            import zstandard  # type: ignore[import-not-found]

            self.pack = zstandard.ZstdCompressor(level=1, threads=threads).compressobj()
        self.stream = path.open("wb")
        path.chmod(0o600)
        self.stream.write(header)
        self.waiting = bytearray()
        self.number = 0

    def write(self, chunk: bytes) -> None:
        """More of it."""
        self.add(self.pack.compress(chunk) if self.pack else chunk)

    def add(self, packed: bytes) -> None:
        """What is to be encrypted; the rest of the last frame waits."""
        self.waiting += packed
        while len(self.waiting) > FRAME_BYTES:
            self.frame(self.waiting[:FRAME_BYTES], last=False)
            del self.waiting[:FRAME_BYTES]

    def frame(self, text: bytearray, *, last: bool) -> None:
        """The next frame."""
        size = len(text) + TAG_BYTES
        length = (size | (0x80000000 if last else 0)).to_bytes(4, "big")
        self.stream.writelines((length, self.aead.encrypt(nonce(self.number, last=last), text, length)))
        self.number += 1

    def __enter__(self) -> Writer:  # noqa: PYI034 (Self is not in the Python 3.10 of some targets)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.add(self.pack.flush() if self.pack else b"")
            self.frame(self.waiting, last=True)
            self.stream.flush()
            os.fsync(self.stream.fileno())
        self.stream.close()


def cipher(secret: bytes, header: bytes, name: str) -> Any:
    """The cipher of one file."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    salt, about = header[len(MAGIC) + 1 :], header[: len(MAGIC) + 1] + name.encode()
    return AESGCM(HKDF(SHA256(), 32, salt, about).derive(secret))


def nonce(number: int, *, last: bool) -> bytes:
    """That of a frame: the key is the file's own, so counting is enough."""
    return number.to_bytes(11, "big") + bytes([last])


def decompressed(frames: Iterator[bytes]) -> Iterator[bytes]:
    """What was compressed."""
    import zstandard

    unpack = zstandard.ZstdDecompressor().decompressobj()
    # An empty last frame comes after the end of what was compressed.
    yield from (unpack.decompress(frame) for frame in frames if frame)


def chunks_of(stream: IO[bytes]) -> Iterator[bytes]:
    """A stream, a piece at a time."""
    return iter(lambda: stream.read(FRAME_BYTES), b"")


def sync(directory: Path) -> None:
    """Have the names in a directory on the disk."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Tee:
    """A file that goes forward only: what is read of a stream, and what is passed over, goes to a writer as well."""

    def __init__(self, stream: IO[bytes], writer: Writer) -> None:
        self.stream, self.writer, self.place = stream, writer, 0

    def read(self, size: int) -> bytes:
        """The next piece, which is shorter only at the end."""
        chunk = self.stream.read(size)
        self.place += len(chunk)
        self.writer.write(chunk)
        return chunk

    def tell(self) -> int:
        """How many bytes have gone by."""
        return self.place

    def seek(self, place: int) -> None:
        """Go on to there, or to the end."""
        while self.place < place and self.read(min(place - self.place, FRAME_BYTES)):
            pass


class Pieces:
    """An object's pieces as a stream to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self.pieces, self.waiting = pieces, b""

    def read(self, size: int) -> bytes:
        """The next piece."""
        while len(self.waiting) < size and (piece := next(self.pieces, None)) is not None:
            self.waiting += piece
        found, self.waiting = self.waiting[:size], self.waiting[size:]
        return found


def take(sealed: Sealed, directory: str) -> dict[str, Any]:
    """A base backup as a tar on standard input, into ``base.tar``; its manifest besides, for the next one."""
    path = sealed.path(f"{directory}/base.tar")
    manifest = b""
    path.parent.mkdir(parents=True)
    with Writer(sealed, f"{directory}/base.tar", path, THREADS) as writer:
        tee = Tee(sys.stdin.buffer, writer)
        with tarfile.open(mode="r:", fileobj=tee) as archive:  # type: ignore[call-overload]
            for member in archive:
                if member.name == "backup_manifest" and (found := archive.extractfile(member)):
                    manifest = found.read()
        tee.seek(sys.maxsize)
    if not manifest:
        raise DamagedError("there is no backup_manifest in what came")
    sealed.write(f"{directory}/backup_manifest", iter([manifest]))
    return {"bytes": tee.place, "sealed": path.stat().st_size, "manifest": json.loads(manifest)}


def unpack(sealed: Sealed, name: str, directory: Path) -> None:
    """A base backup, into a directory of ours. Raises DamagedError, OSError."""
    with tarfile.open(mode="r|", fileobj=Pieces(sealed.read(name)), bufsize=FRAME_BYTES) as archive:  # type: ignore[call-overload]
        # Its own, where this Python has it; the others look for themselves.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        for member in archive:
            if member.name.startswith("/") or ".." in Path(member.name).parts:
                raise DamagedError(f"it holds the path {member.name}")
            archive.extract(member, directory, set_attrs=member.isfile())
        # What comes after the last file is to be looked at as well.
        while archive.fileobj.read(FRAME_BYTES):
            pass


def problem(sealed: Sealed, name: str) -> str:
    """What is wrong with an object; empty if nothing is."""
    try:
        for _ in sealed.read(name):
            pass
    except FileNotFoundError:
        return "is missing"
    except DamagedError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 (whatever a library says of damaged data)
        return f"cannot be read: {error}"
    return ""


def push(sealed: Sealed, path: Path, name: str) -> None:
    """A file of WAL into the repository; one that is there with the same content is left. Raises OSError."""
    try:
        record = json.loads(sealed.path("repository.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise OSError(f"the repository {sealed.repository} is away") from None
    if (system := system_here()) not in ("", record["system"]):
        raise OSError(f"the repository {sealed.repository} is that of system {record['system']}, and this is {system}")
    kept = f"wal/{name}"
    if not sealed.path(kept).exists():
        with path.open("rb") as stream:
            sealed.write(kept, chunks_of(stream))
    elif b"".join(sealed.read(kept)) != path.read_bytes():
        raise OSError(f"{name} is in the repository with another content: whose is it?")


def system_here() -> str:
    """The identifier of the database in whose data directory we are, where pg_control begins; empty anywhere else."""
    try:
        with Path("global/pg_control").open("rb") as stream:
            return str(int.from_bytes(stream.read(8), sys.byteorder))
    except FileNotFoundError:
        return ""


def stopping() -> float | None:
    """For how many seconds the server, in whose data directory we are, has been stopping; None while it runs."""
    with suppress(OSError, IndexError):
        record = Path("postmaster.pid")
        if record.read_text(encoding="utf-8").splitlines()[7].strip() == "stopping":
            return time.time() - record.stat().st_mtime
    return None


def backlog(path: Path) -> float:
    """How many MiB of WAL wait for the repository."""
    try:
        return len(list((path.parent / "archive_status").glob("*.ready"))) * path.stat().st_size / 2**20
    except OSError:
        return 0


def in_time(work: Callable[[], None], seconds: float) -> bool:
    """Whether it ends well in time: a disk that is away may never answer, and who waits for it cannot be stopped."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except (OSError, DamagedError, ValueError, KeyError) as error:
            say(str(error))
        finally:
            os._exit(FAILED)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.01)
    say(f"the repository has not answered for {seconds:g} s")
    os.kill(child, signal.SIGKILL)
    return False


def archive(settings: dict[str, Any], path: Path, name: str) -> int:
    """PostgreSQL's archive_command: the exit status. What gives when too much waits is the archive, not the service."""
    ends = stopping()
    if ends is not None and ends > STOP_SECONDS:
        return FINAL
    sealed = Sealed(settings)
    seconds = PUSH_SECONDS if ends is None else LAST_PUSH_SECONDS
    if in_time(lambda: push(sealed, path, name), seconds):
        return 0
    if stopping() is not None:
        return FINAL
    if backlog(path) <= float(settings["wal_mebibytes"]):
        return FAILED
    say(f"{name} is given up: more than {settings['wal_mebibytes']} MiB of WAL wait for the repository")
    with (Path(settings["notes"]) / "given_up").open("a", encoding="utf-8") as notes:
        notes.write(f"{name}\n")
    return 0


def fetch(settings: dict[str, Any], name: str, path: Path) -> int:
    """PostgreSQL's restore_command: the exit status. What is damaged ends a recovery; what is missing is its end."""
    sealed = Sealed(settings)
    if not sealed.path(f"wal/{name}").exists():
        return FAILED
    try:
        with path.open("wb") as stream:
            stream.writelines(sealed.read(f"wal/{name}"))
    except (OSError, DamagedError) as error:
        say(f"wal/{name}: {error}")
        return FINAL
    return 0


def say(line: str) -> None:
    """A line for the log."""
    print(f"titanic archive: {line}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Runs a command; the exit status."""
    settings = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    command, rest = arguments[1], arguments[2:]
    if command == "push":
        return archive(settings, Path(rest[0]), rest[1])
    if command == "fetch":
        return fetch(settings, rest[0], Path(rest[1]))
    sealed = Sealed(settings)
    try:
        if command == "take":
            print(json.dumps(take(sealed, rest[0])))
        elif command == "unpack":
            unpack(sealed, rest[0], Path(rest[1]))
        elif command == "read":
            sys.stdout.buffer.writelines(sealed.read(rest[0]))
        elif command == "records":
            print(json.dumps({name: json.loads(b"".join(sealed.read(name))) for name in json.load(sys.stdin)}))
        elif command == "write":
            sealed.write(rest[0], chunks_of(sys.stdin.buffer))
        else:  # verify
            print(json.dumps({name: why for name in json.load(sys.stdin) if (why := problem(sealed, name))}))
    except (OSError, DamagedError, tarfile.TarError, ValueError) as error:
        say(f"{rest[0] if rest else command}: {error}")
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
