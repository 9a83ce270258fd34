"""A Thunderbird of a test's own, without a window, spoken to by Marionette: its own code does what is asked.

It is set as docs/how-to/thunderbird.md says. Marionette is the remote protocol of Mozilla's programs: each
message is its length, a colon, and JSON.
"""

import itertools
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SERVER = "ldap_2.servers.sceau"
START_SECONDS = 60
_QUIET = {
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "mail.provider.suppress_dialog_on_startup": True,
    "mailnews.start_page.enabled": False,
    "toolkit.telemetry.enabled": False,
}
_BOOK = f"""
    const {{ MailServices }} = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
    const book = MailServices.ab.getDirectoryFromId("{SERVER}");
"""
# As the password manager keeps what a person typed at the first search.
_KEEP_PASSWORD = """
    const [password, done] = arguments;
    const url = book.QueryInterface(Ci.nsIAbLDAPDirectory).lDAPURL;
    const login = Cc["@mozilla.org/login-manager/loginInfo;1"].createInstance(Ci.nsILoginInfo);
    login.init(url.prePath, null, url.spec, "", password, "", "");
    Services.logins.addLoginAsync(login).then(() => done(true), error => done(String(error)));
"""
# What the field of a recipient does while it is typed into.
_COMPLETE = """
    const [typed, done] = arguments;
    const kind = Cc["@mozilla.org/autocomplete/search;1?name=ldap"];
    const search = kind.createInstance(Ci.nsIAutoCompleteSearch);
    search.startSearch(typed, JSON.stringify({ type: "addr_to", idKey: "" }), null, {
        onSearchResult(_, result) {
            if (result.searchResult > Ci.nsIAutoCompleteResult.RESULT_SUCCESS) return;
            done(Array.from({ length: result.matchCount }, (_, place) => result.getValueAt(place)));
        },
    });
"""
# What the search of the address book does.
_LOOK = """
    const [words, done] = arguments;
    const fields = ["DisplayName", "FirstName", "LastName", "PrimaryEmail", "Company"];
    const query = `(or${fields.map(name => `(${name},c,${encodeURIComponent(words)})`).join("")})`;
    const found = [];
    book.search(query, "", {
        onSearchFoundCard(card) { found.push(card.primaryEmail); },
        onSearchFinished() { done(found); },
    });
"""


class Thunderbird:
    """One that runs, and its only address book."""

    def __init__(self, link: socket.socket) -> None:
        self._link, self._numbers = link, itertools.count(1)
        self._buffer = b""
        self._message()
        self._ask("WebDriver:NewSession", {})
        self._ask("Marionette:SetContext", {"value": "chrome"})

    def keep_password(self, password: str) -> None:
        assert self._run(_KEEP_PASSWORD, password) is True

    def complete(self, typed: str) -> list[str]:
        """What is offered for a recipient: names with addresses."""
        return list(self._run(_COMPLETE, typed))

    def look(self, words: str) -> list[str]:
        """The addresses that the search of the address book shows."""
        return list(self._run(_LOOK, words))

    def _run(self, script: str, *values: str) -> Any:
        asked = {"script": _BOOK + script, "args": list(values), "sandbox": "system", "scriptTimeout": 60_000}
        return self._ask("WebDriver:ExecuteAsyncScript", asked)["value"]

    def _ask(self, command: str, values: dict[str, Any]) -> Any:
        asked = json.dumps([0, next(self._numbers), command, values]).encode()
        self._link.sendall(b"%d:%s" % (len(asked), asked))
        _, _, error, result = self._message()
        assert error is None, error
        return result

    def _message(self) -> Any:
        while b":" not in self._buffer:
            self._receive()
        length, _, self._buffer = self._buffer.partition(b":")
        while len(self._buffer) < int(length):
            self._receive()
        said, self._buffer = self._buffer[: int(length)], self._buffer[int(length) :]
        return json.loads(said)

    def _receive(self) -> None:
        received = self._link.recv(65_536)
        assert received, "Thunderbird ended"
        self._buffer += received


@contextmanager
def running(folder: Path, port: int, settings: dict[str, Any]) -> Iterator[Thunderbird]:
    """Thunderbird with this profile, until the end of the block; `settings` are those of the directory."""
    chosen = {
        **_QUIET,
        "marionette.port": port,
        "ldap_2.autoComplete.useDirectory": True,
        "ldap_2.autoComplete.directoryServer": SERVER,
        **{f"{SERVER}.{name}": value for name, value in settings.items()},
    }
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in chosen.items())
    (folder / "user.js").write_text("".join(lines))
    process = subprocess.Popen(
        ["thunderbird", "--headless", "--no-remote", "--profile", str(folder), "--marionette",
         "--remote-allow-system-access"],
        env={**os.environ, "HOME": str(folder), "MOZ_HEADLESS": "1"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with _connected(process, port) as link:
            yield Thunderbird(link)
    finally:
        process.terminate()
        process.wait(30)


def _connected(process: subprocess.Popen[bytes], port: int) -> socket.socket:
    ends = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, "Thunderbird does not start"
        try:
            link = socket.create_connection(("127.0.0.1", port), timeout=90)
        except ConnectionRefusedError:
            assert time.monotonic() < ends
            time.sleep(0.2)
        else:
            return link
