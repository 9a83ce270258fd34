"""Private OpenLDAP slapds, each in a folder of its own, from the binary the distribution installs.

Makes their configuration, says how to start them (the supervisor or a test keeps the processes). The one that
holds the tree listens to the publisher alone, loads a rebuilt tree and puts it in place. Those that answer
readers from its data are `slapd_readers`. The content of the tree is for `directory/ldap`.
"""

import os
import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from tempfile import TemporaryFile
from typing import IO, cast
from urllib.parse import quote

from directory.base.errors import Kind, Refusal
from directory.base.unix_sockets import make_folder, socket_path
from directory.ldap.client import LdapClient

SEARCHED = (*os.get_exec_path(), "/usr/local/sbin", "/usr/sbin", "/sbin")
MODULES = (Path("/usr/lib/ldap"), Path("/usr/lib64/openldap"), Path("/usr/lib/openldap"))
SCHEMAS = (Path("/etc/ldap/schema"), Path("/etc/openldap/schema"))
APPARMOR_PROFILE = Path("/etc/apparmor.d/usr.sbin.slapd")
SIXTEEN_GIB = 16 << 30

# What names the files of `TlsFiles`; the access rules of slapd.ldif let us change these and nothing else.
ATTRIBUTES = {
    "authority": "olcTLSCACertificateFile",
    "certificate": "olcTLSCertificateFile",
    "key": "olcTLSCertificateKeyFile",
}


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of the LDAPS listener: its certificate (with chain), its key, and the CA it was issued by."""

    certificate: Path
    key: Path
    authority: Path


@dataclass(frozen=True)
class Slapd(ABC):
    """A slapd below `folder`; nothing exists until `make()`, nothing runs until somebody starts `command()`.

    What all of them have in common; which listens where, and lets whom read what, is said by each.
    """

    folder: Path
    suffix: str = "o=sceau,c=fr"
    host: str = "127.0.0.1"
    max_size: int = SIXTEEN_GIB

    @property
    def socket(self) -> Path:
        """The `ldapi` socket: beside the data, or in a short folder when that path is too long."""
        return socket_path(self.folder / "run" / "ldapi")

    @property
    def url(self) -> str:
        """Where this machine asks it: the Unix socket, on which the kernel says who is there."""
        return f"ldapi://{quote(str(self.socket), safe='')}"

    @property
    def public_urls(self) -> tuple[str, ...]:
        """Where it answers others."""
        return ()

    def make(self) -> None:
        """Make the configuration anew, and the folders where missing; leave a server alone that runs.

        Refuses when slapd is not installed (UNAVAILABLE), or a port or the socket's folder is taken
        (CONFLICT).
        """
        self._refuse_foreign_socket()
        if self.answers():
            return
        for url in self.public_urls:
            self._refuse_taken_port(int(url.rpartition(":")[2]))
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / "sasl").mkdir(exist_ok=True, mode=0o700)
        make_folder(self.socket.parent, self.folder)
        self._keep_data()
        self._copy_if_confined()
        self._configure(self.folder / "config", self._data)

    def command(self) -> list[str]:
        """The command line of the server; `-d 0` keeps it in the foreground and silent."""
        listeners = " ".join((self.url, *(f"{url}/" for url in self.public_urls)))
        # A folder without plugins: SASL then has EXTERNAL, and no password to try.
        sasl = f"SASL_PATH={self.folder / 'sasl'}"
        program = (str(self._program), "-F", str(self.folder / "config"))
        return ["/usr/bin/env", sasl, *program, "-h", listeners, "-d", "0"]

    def answers(self) -> bool:
        """Whether a server answers on the Unix socket."""
        if not self.socket.exists():
            return False
        try:
            LdapClient(self.url, seconds=2).check()
        except Refusal:
            return False
        return True

    def wait_ready(self, seconds: float = 20) -> None:
        """Return when the server answers; refuse when it does not in time."""
        deadline = time.monotonic() + seconds
        while not self.answers():
            if time.monotonic() > deadline:
                words = f"run `{' '.join(self.command())}` to see its own words"
                text = f"slapd did not answer within {seconds:.0f} s: {words}."
                raise Refusal(Kind.UNAVAILABLE, "slapd-silent", text)
            time.sleep(0.02)

    @property
    @abstractmethod
    def _data(self) -> Path:
        """The folder of the tree it answers from."""

    @property
    @abstractmethod
    def _kind(self) -> str:
        """The file beside this one that holds what is particular to it."""

    def _keep_data(self) -> None:
        """Make sure that there is a folder of the tree: a reader may be the first to open it."""
        self._data.mkdir(parents=True, exist_ok=True, mode=0o700)

    def _words(self) -> dict[str, str]:
        """What the files leave open, beside what all have."""
        return {}

    @property
    def _program(self) -> Path:
        copy = self.folder / "bin" / "slapd"
        return copy if copy.exists() else _installed()

    def _copy_if_confined(self) -> None:
        """Run a copy where AppArmor confines /usr/sbin/slapd to the system's own folders, as Ubuntu does.

        The profile is attached to that path. It was not written for a private slapd with its own folder.
        Changing the system's profile would need root and loosen the system's server too. Where the profile is
        not loaded, the copy is needless and harmless.
        """
        copy = self.folder / "bin" / "slapd"
        if not APPARMOR_PROFILE.exists():
            shutil.rmtree(copy.parent, ignore_errors=True)
            return
        installed = _installed()
        # Compared each time: after an upgrade an old binary would not load the new modules.
        if copy.exists() and copy.stat().st_mtime_ns == installed.stat().st_mtime_ns:
            return
        copy.parent.mkdir(exist_ok=True, mode=0o700)
        shutil.copy2(installed, copy.with_suffix(".new"))
        copy.with_suffix(".new").rename(copy)

    def _configure(self, config: Path, data: Path) -> None:
        """Turn the template into a `cn=config` folder, complete or not there at all."""
        text = config.with_suffix(".ldif")
        fresh = config.with_name(config.name + ".new")
        text.unlink(missing_ok=True)
        with os.fdopen(os.open(text, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(self._ldif(data))
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._run(["-T", "add", "-n", "0", "-F", str(fresh), "-l", str(text)])
        shutil.rmtree(config, ignore_errors=True)
        fresh.rename(config)

    def _ldif(self, data: Path) -> str:
        named = {
            "suffix": self.suffix,
            "uid": str(os.geteuid()),
            "modules": str(_first(MODULES)),
            "schemas": str(_first(SCHEMAS)),
            "schema": (files("directory.ldap") / "sceau.ldif").read_text(),
            "data": str(data.resolve()),
            "max_size": str(self.max_size),
            "particular": "olcIdleTimeout: 900",
            "schema_readers": f'dn.exact="cn=publisher,{self.suffix}" read by * none',
            "indexes": _text("indexes.ldif").rstrip(),
            "write_seconds": "30",
            **self._words(),
        }
        named["database"] = Template(_text(self._kind)).substitute(named)
        whole = Template(_text("slapd.ldif")).substitute(named)
        # An empty part must not end the entry it stands in: two blank lines become one, comments go.
        encoded = (_encoded(line) for line in whole.splitlines() if not line.startswith("#"))
        return "\n".join(encoded).replace("\n\n\n", "\n\n") + "\n"

    def _run(self, arguments: Sequence[str], given: Iterable[bytes] = ()) -> None:
        """Run one of slapd's tools with `given` as its input; refuse with its own words when it fails."""
        command = [str(self._program), *arguments]
        # In a file: a pipe that nobody empties would stop the tool that fills it.
        with TemporaryFile() as words:
            try:
                tool = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=words, stderr=words)  # noqa: S603 - slapd itself
            except OSError as error:
                text = f"{command[0]} cannot be run: {error}."
                raise Refusal(Kind.UNAVAILABLE, "slapd-not-run", text) from error
            _feed(tool, given)
            if tool.returncode:
                words.seek(0)
                told = " ".join(words.read().decode(errors="replace").split())[-600:] or _death(tool)
                text = f"slapd refused its configuration or data: {told}"
                raise Refusal(Kind.UNAVAILABLE, "slapd-not-made", text)

    def _refuse_foreign_socket(self) -> None:
        """The short folder lies where everybody may make one: in another's, another's server could answer."""
        folder = self.socket.parent
        if folder.is_relative_to(self.folder.resolve()) or not os.path.lexists(folder):
            return
        if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            text = (
                f"{folder} belongs to somebody else: remove it, or choose a state folder with a shorter path."
            )
            raise Refusal(Kind.CONFLICT, "socket-folder-taken", text)

    def _refuse_taken_port(self, port: int) -> None:
        if _taken(self.host, port):
            text = f"Port {port} of {self.host} is taken: stop what listens there or choose another."
            raise Refusal(Kind.CONFLICT, "port-taken", text, port=port)


@dataclass(frozen=True)
class EmbeddedSlapd(Slapd):
    """The slapd that holds the tree: the publisher writes to it over the Unix socket, nobody else asks it.

    `bare` answers everybody on `port`, without limits: the plain engine that benchmarks compare with.
    """

    bare: bool = False
    port: int = 3389

    @property
    def data(self) -> Path:
        """The folder of the database."""
        return self.folder / "data"

    @property
    def public_urls(self) -> tuple[str, ...]:
        """None, but where it is the bare engine."""
        return (url_of("ldap", self.host, self.port),) if self.bare else ()

    def load(self, ldif: Iterable[bytes]) -> None:
        """Load a whole tree into a fresh database beside the served one; `swap()` puts it in place.

        slapd reads while the pieces of `ldif` are being made. The served tree is untouched whatever happens:
        refusal UNAVAILABLE `slapd-not-made` when slapd will not have an entry, or the disk is full.
        """
        fresh, config = self.folder / "data.next", self.folder / "config.next"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        try:
            self._configure(config, fresh)
            # -q: without the checks that guard a live database; -w: with the context that replicas ask for.
            self._run(["-T", "add", "-q", "-w", "-F", str(config), "-b", self.suffix], ldif)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(config, ignore_errors=True)

    def swap(self) -> None:
        """Serve what `load()` made from the next start on; refuse while the server runs."""
        if self.answers():
            raise Refusal(
                Kind.CONFLICT,
                "slapd-running",
                "The database can only be put in place while slapd is stopped.",
            )
        old = self.folder / "data.old"
        shutil.rmtree(old, ignore_errors=True)
        self.data.rename(old)
        (self.folder / "data.next").rename(self.data)
        shutil.rmtree(old)

    @property
    def _data(self) -> Path:
        return self.data

    @property
    def _kind(self) -> str:
        return "bare.ldif" if self.bare else "holder.ldif"

    def _keep_data(self) -> None:
        # A swap cut short between its two renames left the old data under another name.
        if not self.data.exists() and (self.folder / "data.old").exists():
            (self.folder / "data.old").rename(self.data)
        super()._keep_data()


def url_of(scheme: str, host: str, port: int) -> str:
    """Where a server listens, as clients are told."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def tls_lines(files_: TlsFiles) -> dict[str, str]:
    """The names of the files as slapd's configuration has them; in quotes, since it takes spaces apart."""
    return {ATTRIBUTES[name]: f'"{path.resolve()}"' for name, path in vars(files_).items()}


def _text(name: str) -> str:
    return (files("api.embedded") / name).read_text()


def _encoded(line: str) -> str:
    """A line of LDIF, in base64 when its value is not ASCII (RFC 2849): folders have accents too."""
    name, colon, value = line.partition(": ")
    if line.isascii() or not colon:
        return line
    return f"{name}:: {b64encode(value.encode()).decode()}"


def _feed(tool: subprocess.Popen[bytes], given: Iterable[bytes]) -> None:
    """Hand over all of `given` and wait for the end; the tool ends with us when making the input fails."""
    try:
        # A tool that ended early says why by its exit code.
        with suppress(BrokenPipeError), cast("IO[bytes]", tool.stdin) as pipe:
            pipe.writelines(given)
    except BaseException:
        tool.kill()
        raise
    finally:
        tool.wait()


def _death(tool: subprocess.Popen[bytes]) -> str:
    """What killed a tool that had no time for words: on a full disk slapd's memory map gives SIGBUS."""
    return f"it ended with code {tool.returncode} (a full disk?)"


def _installed() -> Path:
    program = shutil.which("slapd", path=os.pathsep.join(SEARCHED))
    if program is None:
        text = "slapd is not installed: as root, run `apt-get install slapd ldap-utils`."
        raise Refusal(Kind.UNAVAILABLE, "slapd-missing", text)
    return Path(program).resolve()


def _first(folders: Sequence[Path]) -> Path:
    for folder in folders:
        if folder.is_dir():
            return folder
    text = f"slapd's own files are in none of {', '.join(map(str, folders))}: reinstall the package `slapd`."
    raise Refusal(Kind.UNAVAILABLE, "slapd-incomplete", text)


def _taken(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As slapd does: what a server stopped a moment ago left behind does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind((host, port))
            return False
    return True
