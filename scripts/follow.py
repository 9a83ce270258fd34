#!/usr/bin/env python3
"""Keep a copy of what Sceau publishes: a signed export to begin from, then the feed of changes.

    scripts/follow.py --url URL --token-file FILE --ca ROOT.pem COPY.sqlite [--once | --follow | --dump]

A reference for operators who write their own: the standard library, and `cryptography` for the signature.
Interrupted anywhere, even by `kill -9`, it goes on where it was. Told that it comes too late (410), it begins
again, and its copy shows the old state until the new one is whole. It does not ask whether the certificate
that signed the export was revoked: docs/reference/changes.md says how.
"""

import argparse
import base64
import gzip
import hashlib
import http.client
import json
import shutil
import sqlite3
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

# Where each file's records go, and which member is their key.
FILES = {
    "authorities.ndjson.gz": ("authority", "id"),
    "organisations.ndjson.gz": ("organisation", "finess"),
    "practitioners.ndjson.gz": ("practitioner", "national_id"),
    # The feed says under it what goes, so that only who held an address learns which.
    "mailboxes.ndjson.gz": ("mailbox", "opaque_key"),
}
DOCUMENT_SIGNING = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")
# Lines between two commits: what is done twice after a kill.
LINES_A_COMMIT = 500
WAIT_SECONDS = 30
# Exports of this format and later say the opaque keys; copies of an earlier form begin again.
FORMAT = 2
LONGEST_PAUSE = 60
SCHEMA = """
CREATE TABLE IF NOT EXISTS item (entity TEXT, key TEXT, value TEXT, PRIMARY KEY (entity, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS place (single INTEGER PRIMARY KEY CHECK (single = 1), cursor TEXT NOT NULL);
"""


class WrongError(Exception):
    """What was served cannot be believed: a signature, a checksum, a form."""


class TooLateError(Exception):
    """The feed is not kept back to this cursor any more."""


# How often a place is asked for before it is given up.
SEATS_ASKED = 5


@dataclass(frozen=True)
class Service:
    """Where the service is, who asks, and which CA he believes."""

    url: str
    token: str
    ca: x509.Certificate

    def get(self, path: str, **headers: str) -> Any:
        """The open answer; TooLateError for 410, urllib's HTTPError for any other refusal.

        Where every seat is taken it waits for `Retry-After` and asks again.
        """
        request = urllib.request.Request(self.url.rstrip("/") + path, headers=headers)  # noqa: S310 - the operator's own URL
        request.add_header("Authorization", f"Bearer {self.token}")
        for left in reversed(range(SEATS_ASKED)):
            try:
                return urllib.request.urlopen(request, timeout=WAIT_SECONDS + 30)  # noqa: S310 - same
            except urllib.error.HTTPError as error:
                if error.code == HTTPStatus.GONE:
                    raise TooLateError from error
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or not left:
                    raise
                time.sleep(float(error.headers.get("Retry-After", "2")))
        raise AssertionError("the last try raises")


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("copy", type=Path, help="the SQLite file of the copy")
    parser.add_argument("--url", help="the service, as in https://sceau.example")
    parser.add_argument("--token-file", type=Path, help="file of the token, of role operator or auditor")
    parser.add_argument("--ca", type=Path, help="the root certificate, in PEM, had by another road")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--once", action="store_true", help="until nothing is waiting (the default)")
    what.add_argument("--follow", action="store_true", help="for ever")
    what.add_argument("--dump", action="store_true", help="print the copy, a line of JSON an item, and stop")
    given = parser.parse_args()
    if given.dump:
        if not given.copy.exists():
            raise SystemExit(f"there is no copy in {given.copy}")
        with Copy(given.copy) as copy:
            copy.dump()
        return
    if not (given.url and given.token_file and given.ca):
        parser.error("--url, --token-file and --ca are needed")
    try:
        ca = x509.load_pem_x509_certificate(given.ca.read_bytes())
        service = Service(given.url, given.token_file.read_text().strip(), ca)
        with Copy(given.copy) as copy:
            follow(service, copy, forever=given.follow)
    except WrongError as error:
        raise SystemExit(f"not believed, and nothing of it kept: {error}") from error
    except urllib.error.HTTPError as error:
        raise SystemExit(f"refused: {error}: {_told(error)}") from error
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise SystemExit(f"not done: {error}") from error


def _told(refusal: urllib.error.HTTPError) -> str:
    """What the service says of its refusal (RFC 9457), as far as it says anything."""
    try:
        return str(json.loads(refusal.read())["detail"])
    except (ValueError, KeyError, OSError):
        return "no reason was given"


def follow(service: Service, copy: "Copy", *, forever: bool) -> None:
    """Bring the copy up to date; with `forever`, keep it so, whatever fails meanwhile."""
    pause = 1
    while True:
        try:
            more = copy.step(service, wait=WAIT_SECONDS if forever else 0)
            pause = 1
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if not forever:
                raise
            print(f"not now: {error}; again in {pause} s", file=sys.stderr)
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            continue
        if not (more or forever):
            return


class Copy:
    """The copy: what was published under each key, and the cursor it stands at, always committed together."""

    def __init__(self, path: Path) -> None:
        self.files = path.with_name(path.name + ".files")
        self.began = False
        self.link = sqlite3.connect(path, isolation_level=None)
        self.link.execute("PRAGMA journal_mode = WAL")
        self.link.executescript(SCHEMA)
        if self.link.execute("PRAGMA user_version").fetchone()[0] < FORMAT:
            # The place first: killed in between, it begins again.
            self.link.execute("DELETE FROM place")
            self.link.execute(f"PRAGMA user_version = {FORMAT:d}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.link.close()

    def step(self, service: Service, wait: int) -> bool:
        """One page of changes, or a new beginning; whether more is there at once."""
        found = self.link.execute("SELECT cursor FROM place").fetchone()
        if found is None:
            self.begin(service)
            return True
        try:
            more = self.page(service, found[0], wait)
        except TooLateError as error:
            if self.began:
                raise ConnectionError("the newest export is too late as well: another must come") from error
            print("too late for the feed: beginning again from an export", file=sys.stderr)
            self.begin(service)
            return True
        self.began = False
        return more

    def page(self, service: Service, cursor: str, wait: int) -> bool:
        """Apply one page, line by line; a page that is cut off leaves what came before the cut."""
        asked = urllib.parse.urlencode({"cursor": cursor, "wait": wait, "keys": "opaque"})
        with service.get(f"/v1/changes?{asked}") as answer:
            ending, count = None, 0
            self.link.execute("BEGIN IMMEDIATE")
            try:
                for count, line in enumerate(whole_lines(answer), 1):
                    if "next" in line:
                        ending = line
                        break
                    self.apply(line)
                    cursor = line["cursor"]
                    if count % LINES_A_COMMIT == 0:
                        self.stand_at(cursor)
                        self.link.execute("COMMIT")
                        self.link.execute("BEGIN IMMEDIATE")
                self.stand_at(cursor if ending is None else ending["next"])
                self.link.execute("COMMIT")
            except BaseException:
                self.link.execute("ROLLBACK")
                raise
            retry = answer.headers.get("Retry-After")
        if ending is None:
            raise ConnectionError("the page ended before its last line")
        print(f"{count - 1} lines", file=sys.stderr)
        if retry and not ending["more"]:
            time.sleep(int(retry))
        return bool(ending["more"])

    def apply(self, line: dict[str, Any]) -> None:
        """What the line says of its key, whatever was known of it."""
        key = (line["entity"], line["key"])
        if line["act"] == "remove":
            self.link.execute("DELETE FROM item WHERE entity = ? AND key = ?", key)
        else:
            self.link.execute("REPLACE INTO item VALUES (?, ?, ?)", (*key, compact(line["value"])))

    def stand_at(self, cursor: str) -> None:
        """Remember the place, in the transaction of what was applied."""
        self.link.execute("REPLACE INTO place VALUES (1, ?)", (cursor,))

    def begin(self, service: Service) -> None:
        """Replace the whole copy by the newest export, at once."""
        with service.get("/v1/exports/latest") as answer:
            stamp = json.load(answer)["stamp"]
        with service.get(f"/v1/exports/{stamp}/manifest.jws") as answer:
            manifest = verified(answer.read(), service.ca, datetime.now(UTC))
        if manifest["format"] < FORMAT:
            raise ConnectionError("the newest export is of an earlier form: another must come")
        folder = self.files / stamp
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            fetch(service, f"/v1/exports/{stamp}/{name}", folder / name, manifest["files"][name])
        self.link.execute("BEGIN IMMEDIATE")
        try:
            self.link.execute("DELETE FROM item")
            for name, (entity, key) in FILES.items():
                rows = ((entity, one[key], compact(one)) for one in records(folder / name))
                self.link.executemany("INSERT INTO item VALUES (?, ?, ?)", rows)
            self.stand_at(manifest["cursor"])
            self.link.execute("COMMIT")
        except BaseException:
            self.link.execute("ROLLBACK")
            raise
        shutil.rmtree(self.files)
        self.began = True
        print(f"began from the export of {manifest['made_at']}", file=sys.stderr)

    def dump(self) -> None:
        """Print every item, in order of entity and key."""
        for entity, key, value in self.link.execute("SELECT * FROM item ORDER BY entity, key"):
            print(f'{{"entity":{json.dumps(entity)},"key":{json.dumps(key)},"value":{value}}}')


def whole_lines(answer: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Each line read; ConnectionError for one that was cut off."""
    for line in answer:
        if not line.endswith(b"\n"):
            raise ConnectionError("the page ended within a line")
        yield json.loads(line)


def fetch(service: Service, path: str, into: Path, facts: dict[str, Any]) -> None:
    """The whole file, going on where a former attempt ended; WrongError when it is not what was signed."""
    held = into.stat().st_size if into.exists() else 0
    if held < facts["size"]:
        headers = {"Range": f"bytes={held}-", "If-Range": f'"{facts["sha256"]}"'} if held else {}
        with (
            service.get(path, **headers) as answer,
            into.open("ab" if answer.status == HTTPStatus.PARTIAL_CONTENT else "wb") as file,
        ):
            shutil.copyfileobj(answer, file, 1 << 20)
    with into.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != facts["sha256"]:
        into.unlink()
        raise WrongError(f"{into.name} is not the file that was signed")


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, one at a time."""
    with gzip.open(path, "rb") as file:
        yield from map(json.loads, file)


def compact(value: Any) -> str:
    """JSON in one form, so that equal values are equal texts."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def verified(signed: bytes, ca: x509.Certificate, now: datetime) -> dict[str, Any]:
    """The manifest inside a compact JWS (RFC 7515), once its signature and its chain are sound."""
    try:
        head, body, signature = signed.decode("ascii").strip().split(".")
        header = json.loads(unpadded(head))
        if header["alg"] != "ES256":
            raise WrongError(f"signed by {header['alg']}, not ES256")
        leaf, issuing = (x509.load_der_x509_certificate(base64.b64decode(one)) for one in header["x5c"])
        key = trusted_key(leaf, issuing, ca, now)
        octets = unpadded(signature)
        der = encode_dss_signature(int.from_bytes(octets[:32], "big"), int.from_bytes(octets[32:], "big"))
        key.verify(der, f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError, KeyError, TypeError, x509.ExtensionNotFound) as error:
        raise WrongError(f"the manifest's signature does not hold: {error!r}") from error
    manifest: dict[str, Any] = json.loads(unpadded(body))
    return manifest


def trusted_key(
    leaf: x509.Certificate, issuing: x509.Certificate, ca: x509.Certificate, now: datetime
) -> ec.EllipticCurvePublicKey:
    """The key of a certificate for signing documents, under a CA below the one we believe, all of today."""
    leaf.verify_directly_issued_by(issuing)
    issuing.verify_directly_issued_by(ca)
    for one in (leaf, issuing, ca):
        if not one.not_valid_before_utc <= now <= one.not_valid_after_utc:
            raise WrongError(f"{one.subject.rfc4514_string()} is not of today")
    if not issuing.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
        raise WrongError("signed under what is no CA")
    if DOCUMENT_SIGNING not in leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value:
        raise WrongError("signed by a certificate for something else")
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise WrongError("signed by a key of another kind")
    return key


def unpadded(text: str) -> bytes:
    """Base64url without padding (RFC 7515 2)."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


if __name__ == "__main__":
    main()
