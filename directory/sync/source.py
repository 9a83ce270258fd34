"""A register file as it arrived: when it was made, its hash, and its lines, read with suspicion.

Opens a zip or plain text without ever unpacking to disk or holding more than a block in memory. Knows nothing
of columns. Whatever is wrong with the file as a whole is a `Refusal` whose code is the run's reason.
"""

import errno
import gzip
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import file_digest
from pathlib import Path
from typing import IO, cast
from zoneinfo import ZoneInfo

from directory.base.errors import Kind, Refusal

BLOCK = 1 << 20
# The whole national file is 0.83 GB of text, 230 MB zipped: a ratio of 4.
LARGEST_TEXT = 3 << 30
LARGEST_RATIO = 200
# Deflate packs a header and a handful of alike rows very well; a bomb has to be large to hurt.
RATIO_MATTERS_ABOVE = 8 << 20
MOST_MEMBERS = 20
LONGEST_LINE = 64 << 10

_MEMBER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}\.(txt|csv|xml)")
_STAMP = re.compile(r"(?<!\d)(20\d{2}[01]\d[0-3]\d)-?([0-2]\d[0-5]\d)(?!\d)")
# A day alone names the daily FINESS.
_DAY = re.compile(r"(?<!\d)20\d{2}[01]\d[0-3]\d(?!\d)")
FRANCE = ZoneInfo("Europe/Paris")
_ENCRYPTED = 0x1
_FOLDS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


@dataclass(frozen=True)
class Member:
    """One text of a source: the file itself, what it unpacks to, or a file within the archive.

    `_stream` opens it at its beginning; `_packed` is how many bytes it takes in the file.
    """

    name: str
    _stream: Callable[[], AbstractContextManager[IO[bytes]]]
    _packed: int

    def blocks(self) -> Iterator[bytes]:
        """Its bytes, a block at a time; damage in the archive is a Refusal, and so is too much text."""
        read = 0
        with _undamaged(self.name), self._stream() as stream:
            while block := stream.read(BLOCK):
                read += len(block)
                if swollen(read, self._packed):
                    raise refused("too-large", f"{self.name} unpacks to more than {read} bytes.")
                yield block

    def chunks(self) -> Iterator[bytes]:
        """Its whole lines, so many as a block holds, without the last one's end.

        A byte order mark is taken off. A last line without its end is a Refusal: the file was cut.
        """
        rest = b""
        read = 0
        for block in _ahead(self.blocks()):
            if not read:
                block = block.removeprefix(b"\xef\xbb\xbf")  # noqa: PLW2901 - the same block without its mark
            read += len(block)
            if read > LARGEST_TEXT:
                raise refused("too-large", f"{self.name} holds more than {LARGEST_TEXT >> 30} GB.")
            whole, end, rest_of_block = block.rpartition(b"\n")
            if end:
                yield rest + whole
                rest = rest_of_block
            else:
                rest += block
            if len(rest) > LONGEST_LINE:
                raise refused("line-too-long", f"{self.name}: a line is longer than {LONGEST_LINE >> 10} kB.")
        if rest:
            raise refused("truncated", f"{self.name}: the last line has no end; the file was cut.")

    def lines(self, on_recoded: Callable[[int], None] | None = None) -> Iterator[list[str]]:
        """Its lines without their ends, in lists; `on_recoded` hears how many were not UTF-8.

        UTF-8 first; a block that is not is read again line by line, and only the lines that fail are taken
        for Windows-1252, so that one bad byte does not garble every name after it. What Windows-1252 does not
        define stays as the control characters of Latin-1, for the row to be rejected. CRLF is tolerated.
        """
        for chunk in self.chunks():
            yield decoded(chunk.split(b"\n"), on_recoded)

    def numbered(self) -> Iterator[tuple[int, list[str]]]:
        """Lists of consecutive lines, each with the number of its first line."""
        number = 1
        for lines in self.lines():
            yield number, lines
            number += len(lines)


def _ahead(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same blocks, each unpacked while the one before is worked on: unpacking leaves Python to others."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, blocks, b"")
        while block := coming.result():
            coming = pool.submit(next, blocks, b"")
            yield block


@contextmanager
def _undamaged(name: str) -> Iterator[None]:
    """What the libraries raise over an archive that is none, as a Refusal; a disk that fails stays what it
    is.
    """
    try:
        yield
    # NotImplementedError: a member of a later format than zipfile knows, a patch, or strongly encrypted.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise refused("damaged-archive", f"{name}: {error}.") from error
    except OSError as error:
        # EINVAL: an archive's table that points before the file's beginning.
        if not isinstance(error, gzip.BadGzipFile) and error.errno != errno.EINVAL:
            raise
        raise refused("damaged-archive", f"{name}: {error}.") from error


def refused(code: str, text: str) -> Refusal:
    """The refusal of a whole file."""
    return Refusal(Kind.UNACCEPTABLE, code, text)


def sha256_of(path: Path) -> bytes:
    """The file's SHA-256; Refusal NOT_FOUND when it is no file that can be read to an end."""
    if path.exists() and not path.is_file():
        raise Refusal(Kind.NOT_FOUND, "no-such-file", f"{path.name} is no regular file: it may have no end.")
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").digest()
    except OSError as error:
        text = f"{path.name}: {error.strerror or 'cannot be read'}."
        raise Refusal(Kind.NOT_FOUND, "no-such-file", text) from error


def stamp_of(path: Path) -> datetime | None:
    """The generation time in the file's name (AAAAMMJJhhmm, French time), None when there is none."""
    found = _STAMP.search(path.name)
    try:
        stamp = datetime.strptime("".join(found.groups()) + "+0000", "%Y%m%d%H%M%z") if found else None
    except ValueError:
        return None
    return stamp and stamp.replace(tzinfo=FRANCE).astimezone(UTC)


def modified_at(path: Path) -> datetime:
    """The file's own time, for files that say nothing of when they were made."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def made_at(path: Path) -> datetime:
    """When a file was made, by its name (a day alone is its beginning in France), else by its own time."""
    day = _DAY.search(path.name)
    try:
        begun = datetime.strptime(day[0], "%Y%m%d").replace(tzinfo=FRANCE) if day else None
    except ValueError:
        begun = None
    return stamp_of(path) or begun or modified_at(path)


@contextmanager
def opened(path: Path, roles: Mapping[str, re.Pattern[str]]) -> Iterator[Mapping[str, Member]]:
    """The texts of `path` by role; members of an archive are found by the patterns of `roles`, the first
    required.

    A file that is not an archive is the first role's text, whatever its name; so is what gzip packed.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise refused("empty-file", f"{path.name} is empty.")
        first, begins = next(iter(roles)), file.read(4)
        if begins not in (b"PK\x03\x04", b"PK\x05\x06"):
            name, unpack = path.name, _plain
            if begins.startswith(b"\x1f\x8b"):
                name, unpack = path.name.removesuffix(".gz"), _unzipped
            yield {first: Member(name, partial(unpack, file), size)}
            return
        with _undamaged(path.name):
            archive = zipfile.ZipFile(file)
        with archive:
            members = _members(path.name, archive, roles)
            if first not in members:
                raise refused("missing-member", f"{path.name} holds no file of the kind it should.")
            yield members


def _plain(file: IO[bytes]) -> AbstractContextManager[IO[bytes]]:
    file.seek(0)
    return nullcontext(file)


def _unzipped(file: IO[bytes]) -> AbstractContextManager[IO[bytes]]:
    file.seek(0)
    return cast("IO[bytes]", gzip.GzipFile(fileobj=file, mode="rb"))


def swollen(size: int, packed: int) -> bool:
    """Whether a text of this size, of so many packed bytes, is larger than any register or a bomb."""
    return size > LARGEST_TEXT or (size > RATIO_MATTERS_ABOVE and size > LARGEST_RATIO * packed)


def _members(name: str, archive: zipfile.ZipFile, roles: Mapping[str, re.Pattern[str]]) -> dict[str, Member]:
    infos = archive.infolist()
    if len(infos) > MOST_MEMBERS:
        raise refused("too-many-members", f"{name} holds {len(infos)} files.")
    size = sum(info.file_size for info in infos)
    if swollen(size, sum(info.compress_size for info in infos)):
        raise refused("too-large", f"{name} would unpack to {size} bytes.")
    found: dict[str, Member] = {}
    for info in infos:
        _check_member(name, info)
        for role, pattern in roles.items():
            if pattern.fullmatch(info.filename):
                if role in found:
                    raise refused("ambiguous-member", f"{name} holds two files of the kind {role}.")
                found[role] = Member(info.filename, partial(archive.open, info), info.compress_size)
    return found


def _check_member(name: str, info: zipfile.ZipInfo) -> None:
    """Nothing is written under a member's name, yet an archive that tries a path is not the register's."""
    mode = info.external_attr >> 16
    # orig_filename: zipfile cuts the other one at a NUL and turns its separators.
    if not _MEMBER_NAME.fullmatch(info.orig_filename) or (
        mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG)
    ):
        raise refused("foreign-member", f"{name} holds something that is not a plain register file.")
    if info.flag_bits & _ENCRYPTED or info.compress_type not in _FOLDS:
        raise refused("foreign-member", f"{name} holds a file packed in a way no register uses.")


def decoded(lines: Sequence[bytes], on_recoded: Callable[[int], None] | None = None) -> list[str]:
    """Lines as text, each without the CR before its end."""
    data = b"\n".join(lines)
    try:
        found = data.decode().split("\n")
    except UnicodeDecodeError:
        tried = [_decoded_line(line) for line in lines]
        found = [line for line, _ in tried]
        if on_recoded:
            on_recoded(sum(encoding != "utf-8" for _, encoding in tried))
    return [line.removesuffix("\r") for line in found] if b"\r" in data else found


def _decoded_line(line: bytes) -> tuple[str, str]:
    for encoding in ("utf-8", "cp1252"):
        try:
            return line.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    return line.decode("latin-1"), "latin-1"
