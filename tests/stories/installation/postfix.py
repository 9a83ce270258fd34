"""A Postfix of a test's own: one port, one domain, every mailbox into one folder."""

import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import cast

from tests.ports import free_port

_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.example
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access inline:{{{{person-3@one.example = 550 no}}}}
virtual_mailbox_domains = one.example
virtual_mailbox_maps = static:inbox/
virtual_mailbox_base = {folder}/box
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{uid}
virtual_minimum_uid = 1
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
alias_maps =
alias_database =
smtpd_tls_security_level = {tls}
smtpd_tls_cert_file = {folder}/certificate.pem
smtpd_tls_key_file = {folder}/key.pem
"""
_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
tlsmgr unix - - n 1000? 1 tlsmgr
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
"""


@dataclass(frozen=True)
class Postfix:
    """Where it listens and where its mail lies."""

    port: int
    folder: Path

    @property
    def inbox(self) -> list[EmailMessage]:
        """What was delivered so far, the oldest first."""
        files = sorted((self.folder / "box" / "inbox" / "new").glob("*"))
        parsed = (message_from_bytes(file.read_bytes(), policy=policy.default) for file in files)
        return [cast("EmailMessage", one) for one in parsed]

    def delivered(self, count: int, seconds: float = 10) -> list[EmailMessage]:
        """The inbox once it holds so many."""
        deadline = time.monotonic() + seconds
        while len(self.inbox) < count and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.inbox


@contextmanager
def postfix(folder: Path, certificate: bytes, key: bytes, *, tls: str = "may") -> Iterator[Postfix]:
    """Run one in `folder`, which every account may pass through; gone afterwards."""
    port = free_port()
    for name in ("config", "queue", "data", "box"):
        (folder / name).mkdir(parents=True)
    for name in ("data", "box"):
        shutil.chown(folder / name, "postfix")
    (folder / "certificate.pem").write_bytes(certificate)
    (folder / "key.pem").write_bytes(key)
    named = {"folder": folder, "uid": pwd.getpwnam("postfix").pw_uid, "tls": tls, "port": port}
    (folder / "config" / "main.cf").write_text(_MAIN.format(**named))
    (folder / "config" / "master.cf").write_text(_MASTER.format(**named))
    command = ["postfix", "-c", str(folder / "config")]
    subprocess.run([*command, "start"], check=True, capture_output=True)
    try:
        yield Postfix(port, folder)
    finally:
        subprocess.run([*command, "abort"], check=True, capture_output=True)
