"""A register file as it arrived: when it was made, its hash, and its lines, read with suspicion.

Opens a zip or plain text without ever unpacking to disk or holding more than a block in memory. Knows nothing
of columns. Whatever is wrong with the file as a whole is a `Refusal` whose code is the run's reason.
"""

import errno
import gzip
import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, time
from functools import partial
from hashlib import file_digest
from pathlib import Path
from typing import IO, cast
from zoneinfo import ZoneInfo

from directory.base.errors import Kind, Refusal
from directory.base.pools import Pool

BLOCK = 1 << 20
# The whole national file is 0.83 GB of text, 230 MB zipped: a ratio of 4.
LARGEST_TEXT = 3 << 30
# No text is packed into more than it takes unpacked, so that no file of a register is larger.
LARGEST_FILE = LARGEST_TEXT
LARGEST_RATIO = 200
# Deflate packs a header and a handful of alike rows very well; a bomb has to be large to hurt.
RATIO_MATTERS_ABOVE = 8 << 20
MOST_MEMBERS = 20
# Of the table of an archive at once; twenty names and what is said of them take some 5 kB.
LARGEST_TABLE = BLOCK
LONGEST_LINE = 64 << 10

_MEMBER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}\.(txt|csv|xml)")
_STAMP = re.compile(r"(?<!\d)(20\d{2}[01]\d[0-3]\d)-?([0-2]\d[0-5]\d)(?!\d)")
# A day alone names the daily FINESS, and archives that somebody renamed.
_DAY = re.compile(r"(?<!\d)(20\d{2})-?([01]\d)-?([0-3]\d)(?!\d)")
_MARK = b"\xef\xbb\xbf"
_BLANK = b" \t\r\xc2\xa0"
_ARCHIVE = b"PK\x03\x04", b"PK\x05\x06"
# What a source answers when it has no file to give; as much of a text as tells what it is.
_WEB_PAGE = re.compile(rb"\s*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)
_LOOKED_AT = 512
FRANCE = ZoneInfo("Europe/Paris")
_ENCRYPTED = 0x1
_FOLDS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}


@dataclass(frozen=True)
class RegisterFile:
    """A register's file, open from the first look at it to its last line.

    What was looked at is what is read: whoever exchanges the file under its name exchanges nothing here.
    """

    path: Path
    descriptor: int

    @property
    def name(self) -> str:
        """What it was called when it was opened, which tells its register and its day."""
        return self.path.name

    @property
    def content(self) -> Path:
        """Its bytes, for each reader from their beginning: duplicates of a descriptor share one position."""
        return Path(f"/proc/self/fd/{self.descriptor}")


@contextmanager
def register_file(path: Path, *, through_links: bool = True) -> Iterator[RegisterFile]:
    """The file of this name, opened once. Refusal NOT_FOUND when it is none that has an end, `too-large` for
    one that no register fills, before anything is read of it.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if through_links else os.O_NOFOLLOW)
    try:
        # Without waiting: to open a pipe would be to wait for its writer.
        descriptor = os.open(path, flags)
    except OSError as error:
        raise unreadable(path.name, error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            text = f"{path.name} is no regular file, and may have no end: not taken in."
            raise Refusal(Kind.NOT_FOUND, "no-such-file", text)
        if status.st_size > LARGEST_FILE:
            text = f"{path.name} takes {status.st_size >> 20} MB: no register does."
            raise refused("too-large", text)
        yield RegisterFile(path, descriptor)
    finally:
        os.close(descriptor)


def unreadable(name: str, error: OSError) -> Refusal:
    """The refusal of a file that cannot be opened, or read to an end."""
    why = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be read ({error.strerror})"
    text = f"{name} {why}: not taken in."
    return Refusal(Kind.NOT_FOUND, "no-such-file", text)


@dataclass(frozen=True)
class Remark:
    """Something odd about a file that was taken all the same: its stable name, and the report's sentence."""

    name: str
    sentence: str


OPEN_END = Remark("no-line-end", "The file ends without a line end; its last row is whole.")


@dataclass(frozen=True)
class Member:
    """One text of a source: the file itself, what it unpacks to, or a file within the archive.

    `_stream` opens it at its beginning; `_packed` is how many bytes it takes in the file.
    """

    name: str
    _stream: Callable[[], AbstractContextManager[IO[bytes]]]
    _packed: int

    def blocks(self) -> Iterator[bytes]:
        """Its bytes, a block at a time. Damage in the archive is a Refusal, and so is too much text, none, or
        a web page in its place.
        """
        read = 0
        with _undamaged(self.name), self._stream() as stream:
            while block := stream.read(BLOCK):
                if not read and _WEB_PAGE.match(block[:_LOOKED_AT].removeprefix(_MARK)):
                    raise refused(
                        "web-page", f"{self.name} is a web page: the source had no register to give."
                    )
                read += len(block)
                if swollen(read, self._packed):
                    raise refused("too-large", f"{self.name} unpacks to more than {read} bytes.")
                yield block
        if not read:
            raise refused("empty-file", f"{self.name} is empty.")

    def chunks(self, on_open_end: Callable[[], None] | None = None) -> Iterator[bytes]:
        """Its whole lines, so many as a block holds, without the last one's end.

        A byte order mark is taken off, blank lines at the end are left out. A last line without its end comes
        by itself, and `on_open_end` hears of it before: whether it is whole is for the reader to say.
        """
        rest = blank = b""
        read = 0
        for block in _ahead(self.blocks()):
            if not read:
                self.check_encoding(block)
                block = block.removeprefix(_MARK)  # noqa: PLW2901 - the same block without its mark
            read += len(block)
            if read > LARGEST_TEXT:
                raise refused("too-large", f"{self.name} holds more than {LARGEST_TEXT >> 30} GB.")
            whole, end, rest_of_block = block.rpartition(b"\n")
            if end:
                filled, after = _without_blank_end(rest + whole)
                if filled:
                    yield blank + filled
                    blank = b""
                blank += after
                rest = rest_of_block
            else:
                rest += block
            if len(blank) > LONGEST_LINE:
                raise refused(
                    "too-large", f"{self.name} holds more than {LONGEST_LINE >> 10} kB of blank lines."
                )
            if len(rest) > LONGEST_LINE:
                raise refused("line-too-long", f"{self.name}: a line is longer than {LONGEST_LINE >> 10} kB.")
        if rest.strip(_BLANK):
            if on_open_end:
                on_open_end()
            yield blank + rest

    def check_encoding(self, block: bytes) -> None:
        """Refuse a text that begins as this block does and is of a wide encoding.

        Registers are UTF-8 or, in old editions, Windows-1252: a NUL in every other byte is neither.
        """
        looked_at = block[:_LOOKED_AT]
        if looked_at.startswith((b"\xff\xfe", b"\xfe\xff")) or looked_at.count(b"\0") > len(looked_at) // 4:
            raise refused("wrong-encoding", f"{self.name} is UTF-16 or UTF-32; registers are UTF-8.")

    def lines(
        self,
        on_recoded: Callable[[int], None] | None = None,
        on_open_end: Callable[[], None] | None = None,
    ) -> Iterator[list[str]]:
        """Its lines without their ends, in lists; `on_recoded` hears how many were not UTF-8, `on_open_end`
        that the last comes without its end.

        UTF-8 first. A block that is not is read again line by line, and only the lines that fail are taken
        for Windows-1252. So one bad byte does not garble every name after it. What Windows-1252 does not
        define stays as the control characters of Latin-1, for the row to be rejected. CRLF is tolerated.
        """
        for chunk in self.chunks(on_open_end):
            yield decoded(chunk.split(b"\n"), on_recoded)

    def numbered(self) -> Iterator[tuple[int, list[str]]]:
        """Lists of consecutive lines, each with the number of its first line."""
        number = 1
        for lines in self.lines():
            yield number, lines
            number += len(lines)


def _without_blank_end(lines: bytes) -> tuple[bytes, bytes]:
    """Lines without the blank ones at their end, and these, each with its end."""
    filled = len(lines)
    while filled > 0:
        begins = lines.rfind(b"\n", 0, filled) + 1
        if lines[begins:filled].strip(_BLANK):
            break
        filled = begins - 1
    if filled <= 0:
        return b"", lines + b"\n"
    blank = lines[filled + 1 :]
    return lines[:filled], blank + b"\n" if filled < len(lines) else b""


def _ahead(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same blocks, each unpacked while the one before is worked on: unpacking leaves Python to others."""
    with Pool(1) as pool:
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


def sha256_of(file: RegisterFile) -> bytes:
    """The file's SHA-256; Refusal NOT_FOUND when it cannot be read to an end."""
    try:
        with file.content.open("rb") as stream:
            return file_digest(stream, "sha256").digest()
    except OSError as error:
        raise unreadable(file.name, error) from error


def stamp_of(path: Path) -> datetime | None:
    """The generation time in the file's name (AAAAMMJJhhmm, French time), None when there is none."""
    return _read_as("%Y%m%d%H%M", _STAMP.search(path.name))


def named_at(path: Path) -> datetime | None:
    """The generation time in a name, or the beginning of the day that it tells alone."""
    return stamp_of(path) or _read_as("%Y%m%d", _DAY.search(path.name))


def _read_as(form: str, match: re.Match[str] | None) -> datetime | None:
    try:
        local = datetime.strptime("".join(match.groups()) + "+0000", f"{form}%z") if match else None
    except ValueError:
        return None
    return local and local.replace(tzinfo=FRANCE).astimezone(UTC)


def oldest(*told: datetime | None) -> datetime | None:
    """The earliest of the times that a file tells of itself; a day alone gives way to a time on that day.

    Names are given by whoever copies a file: a younger one proves nothing against what its text says.
    """
    known = sorted(at for at in told if at is not None)
    if not known:
        return None
    day = known[0].astimezone(FRANCE).date()
    timed = [at for at in known[1:] if at != known[0] and at.astimezone(FRANCE).date() == day]
    return timed[0] if timed and is_day_alone(known[0]) else known[0]


def is_day_alone(told: datetime) -> bool:
    """Whether a file tells of itself no more than a day, which begins it."""
    return told.astimezone(FRANCE).time() == time.min


def written_at(file: RegisterFile, roles: Mapping[str, re.Pattern[str]]) -> datetime | None:
    """When a file was made, by its name and by those of the texts in it; None when none tells."""
    return oldest(named_at(file.path), *(named_at(Path(name)) for name in _names_within(file, roles)))


def _names_within(file: RegisterFile, roles: Mapping[str, re.Pattern[str]]) -> list[str]:
    """The names of a register's texts in an archive; what else is wrong with it is for `opened` to say."""
    try:
        with _Sparing(file) as stream, zipfile.ZipFile(stream) as archive:
            names = archive.namelist()[:MOST_MEMBERS]
    except (Refusal, zipfile.BadZipFile, OSError, NotImplementedError, UnicodeDecodeError, ValueError):
        return []
    return [name for name in names if any(pattern.fullmatch(name) for pattern in roles.values())]


class _Sparing(io.BufferedReader):
    """An archive's bytes for `zipfile`, which reads at once whatever an archive says that its table takes.

    Bounded where it is read: a reader of our own for the end record could be told something else.
    """

    def __init__(self, file: RegisterFile) -> None:
        super().__init__(io.FileIO(file.content))
        self._of = file.name

    def read(self, size: int | None = -1, /) -> bytes:
        """As much, or all that is left; Refusal `too-large` for more than a register's archive needs."""
        wanted = LARGEST_TABLE + 1 if size is None or size < 0 else size
        data = super().read(wanted) if wanted <= LARGEST_TABLE + 1 else b""
        if wanted > LARGEST_TABLE + 1 or len(data) > LARGEST_TABLE:
            raise refused("too-large", f"{self._of}: its table says more than any register's archive holds.")
        return data


def _archive(name: str, stream: IO[bytes]) -> zipfile.ZipFile:
    with _undamaged(name):
        return zipfile.ZipFile(stream)


def is_archive(file: RegisterFile) -> bool:
    """Whether it begins as a zip does, which has texts with names of their own."""
    with file.content.open("rb") as stream:
        return stream.read(4) in _ARCHIVE


def modified_at(file: RegisterFile) -> datetime:
    """The file's own time: of a text that does not say when it was made, and for the order of several."""
    return datetime.fromtimestamp(os.fstat(file.descriptor).st_mtime, UTC)


def arrived_at(file: RegisterFile) -> datetime:
    """When it came to lie where it lies: nobody sets this time, as one sets the file's own."""
    return datetime.fromtimestamp(os.fstat(file.descriptor).st_ctime, UTC)


@contextmanager
def opened(file: RegisterFile, roles: Mapping[str, re.Pattern[str]]) -> Iterator[Mapping[str, Member]]:
    """The texts of `file` by role; members of an archive are found by the patterns of `roles`, the first
    required.

    A file that is not an archive is the first role's text, whatever its name; so is what gzip packed.
    """
    with file.content.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if not size:
            raise refused("empty-file", f"{file.name} is empty.")
        first, begins = next(iter(roles)), stream.read(4)
        if begins not in _ARCHIVE:
            name, unpack = file.name, _plain
            if file.path.suffix.lower() == ".zip":
                _refuse_as_archive(name, stream)
            if begins.startswith(b"\x1f\x8b"):
                name, unpack = file.name.removesuffix(".gz"), _unzipped
            yield {first: Member(name, partial(unpack, stream), size)}
            return
        # Opened anew: `zipfile` reads from it alone.
        with _Sparing(file) as sparing, _archive(file.name, sparing) as archive:
            members = _members(file.name, archive, roles)
            if first not in members:
                raise refused("missing-member", f"{file.name} holds no file of the kind it should.")
            yield members


def _refuse_web_page(name: str, begins: bytes) -> None:
    if _WEB_PAGE.match(begins[:_LOOKED_AT].removeprefix(_MARK)):
        raise refused("web-page", f"{name} is a web page: the source had no register to give.")


def _refuse_as_archive(name: str, file: IO[bytes]) -> None:
    """Say what stands in the place of an archive: an answer of a server is often kept under its name."""
    file.seek(0)
    begins = file.read(_LOOKED_AT)
    _refuse_web_page(name, begins)
    shown = begins[:40].decode("ascii", "replace").partition("\n")[0]
    raise refused("no-archive", f"{name} is called an archive and begins with {shown!r}.")


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
    members: dict[str, Member] = {}
    for info in infos:
        _check_member(name, info)
        for role, pattern in roles.items():
            if pattern.fullmatch(info.filename):
                if role in members:
                    raise refused("ambiguous-member", f"{name} holds two files of the kind {role}.")
                members[role] = Member(info.filename, partial(archive.open, info), info.compress_size)
    return members


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
        texts = data.decode().split("\n")
    except UnicodeDecodeError:
        tried = [_decoded_line(line) for line in lines]
        texts = [line for line, _ in tried]
        if on_recoded:
            on_recoded(sum(encoding != "utf-8" for _, encoding in tried))
    return [line.removesuffix("\r") for line in texts] if b"\r" in data else texts


def _decoded_line(line: bytes) -> tuple[str, str]:
    for encoding in ("utf-8", "cp1252"):
        try:
            return line.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    return line.decode("latin-1"), "latin-1"
