"""What operators do: rebuild LDAP under readers, publish CRLs, withdraw tokens, run jobs, add a worker."""

import socket
import subprocess
import threading
import time
from base64 import b64decode
from http.client import HTTPResponse

import requests

from tests.stories.installation.conftest import SCEAU, Installation, run, within


def test_readers_get_the_old_tree_or_the_new_one_while_it_is_rebuilt(
    installation: Installation, person: tuple[str, str, str]
) -> None:
    """Old answer, new answer, or for under a second a refused connection; never an empty answer."""
    asked = (
        "ldapsearch",
        "-LLL",
        "-x",
        "-H",
        installation.ldap,
        "-b",
        "o=sceau,c=fr",
        f"(mail={person[0]})",
        "mail",
    )
    wrong: list[str] = []
    away: list[float] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            done = run(*asked, check=False)
            if done.returncode != 0:
                away.append(time.monotonic())
            elif f"mail: {person[0]}" not in done.stdout:
                wrong.append(done.stdout)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        rebuilt = installation.ask("ldap", "rebuild")
        time.sleep(0.5)
    finally:
        stop.set()
        reader.join()
    assert wrong == []
    assert rebuilt["entries"] > 1000
    assert not away or away[-1] - away[0] < 1
    within(30, lambda: installation.ask("ldap", "reconcile")["agrees"])
    within(30, lambda: installation.ask("status")["parts"]["ldap"]["state"] == "ok")


def test_pages_and_long_lists_are_whole_while_the_tree_is_rebuilt(
    installation: Installation, person: tuple[str, str, str]
) -> None:
    """Several readers at once, answers of several entries: all of the old tree, all of the new, or none."""
    name = family_name(installation.search(f"(mail={person[0]})", "sn"))
    search = installation.ldapsearch
    asked = [
        (*search, "-E", "pr=3/noprompt", f"(sn={name[:3]}*)", "mail"),
        (*search, "-E", "pr=1/noprompt", f"(|(mail={person[0]})(ou=*))", "mail"),
        (*search, f"(sn={name})", "mail"),
    ]
    before = [shown(run(*each).stdout) for each in asked]
    wrong: list[list[str]] = []
    answers: list[int] = []
    stop = threading.Event()

    def read(which: int) -> None:
        while not stop.is_set():
            done = run(*asked[which], check=False)
            answers.append(done.returncode)
            if done.returncode == 0 and shown(done.stdout) != before[which]:
                wrong.append(shown(done.stdout))

    readers = [threading.Thread(target=read, args=(which,)) for which in (0, 1, 2, 0)]
    for reader in readers:
        reader.start()
    try:
        installation.ask("ldap", "rebuild")
        time.sleep(0.3)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert wrong == []
    assert all(before)
    assert len(before[1]) == 4
    assert answers.count(0) > 10


def family_name(ldif: str) -> str:
    """The `sn` of an answer, which LDIF writes in base64 when it has an accent."""
    line = next(line for line in ldif.split("\n") if line.startswith("sn:"))
    return b64decode(line[5:]).decode() if line.startswith("sn:: ") else line[4:]


def shown(ldif: str) -> list[str]:
    """The names in an answer, in an order of their own: a new tree may give them in another."""
    return sorted(line for line in ldif.split("\n") if line.startswith("dn"))


def test_every_list_can_be_published_by_hand(installation: Installation) -> None:
    lists = sum(one["shards"] for one in installation.ask("ca", "list")["items"])
    assert installation.ask("crl", "publish", "--all")["published"] == lists


def test_a_token_works_until_it_is_withdrawn(installation: Installation) -> None:
    made = installation.ask("token", "create", "gateway for a test", "--role", "operator")
    headers = {"Authorization": f"Bearer {made['secret']}"}
    url = f"{installation.web}/v1/recipients/nobody@nowhere.example"
    assert requests.get(url, headers=headers, timeout=10).status_code == 200
    assert made["secret"] not in installation.sceau("token", "list", "--json").stdout
    bind = ("-D", made["ldap"], "-w", made["secret"])
    told = installation.ldapsearch
    bound = (*told[: told.index("-D")], "-b", "o=sceau,c=fr")
    assert run(*bound, *bind, "(mail=nobody@nowhere.example)").returncode == 0
    installation.sceau("token", "revoke", str(made["id"]))
    assert requests.get(url, headers=headers, timeout=10).status_code == 401
    assert run(*bound, *bind, "(mail=nobody@nowhere.example)", check=False).returncode == 49


def test_a_body_nobody_reads_costs_no_connection(installation: Installation) -> None:
    """Some clients send headers and body apart; an approval reads no body, a refusal of the token neither."""
    asked = (
        b"POST /v1/enrolments/8e03978e-40d5-43e3-bc93-6894a57f9324/approval HTTP/1.1\r\n"
        b"Host: sceau\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", installation.ports[0]), timeout=10) as link:
        for _ in range(5):
            link.sendall(asked)
            time.sleep(0.1)
            link.sendall(b"{}")
            answer = HTTPResponse(link)
            answer.begin()
            answer.read()
            assert (answer.status, answer.will_close) == (401, False)


def test_jobs_are_listed_with_their_last_success_and_run_by_hand(installation: Installation) -> None:
    assert installation.ask("jobs", "run", "registers")["ran"] is True
    listed = {job["name"]: job for job in installation.ask("jobs", "list")["jobs"]}
    assert listed["registers"]["last_success"] is not None
    failing = {
        name: job["last_error"]
        for name, job in listed.items()
        if job["last_failure"] and job["last_failure"] > (job["last_success"] or "")
    }
    assert failing == {}
    metrics = requests.get(f"{installation.web}/metrics", timeout=10).text
    assert 'job="registers"' in metrics


def test_a_second_worker_does_no_harm(installation: Installation, person: tuple[str, str, str]) -> None:
    second = subprocess.Popen(
        [SCEAU, "worker", "--state", str(installation.state)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(2)
        installation.sceau("revoke", person[1], "--reason", "superseded", "--as", "registrar_a")
        within(
            2,
            lambda: (
                "userCertificate" not in installation.search(f"(mail={person[0]})", "userCertificate;binary")
            ),
        )
        assert installation.ask("audit", "verify")["findings"] == []
    finally:
        second.terminate()
        assert second.wait(30) == 0


def test_what_is_published_is_judged_as_a_reader_would(installation: Installation) -> None:
    judged = installation.ask("jobs", "run", "outside-view")
    assert "certificates seen as recorded" in judged["did"]


def test_the_ldaps_certificate_is_replaced_under_a_running_slapd(installation: Installation) -> None:
    def shown() -> str:
        asked = ("openssl", "s_client", "-connect", installation.ldaps.removeprefix("ldaps://"))
        seen = run("openssl", "x509", "-noout", "-serial", input=run(*asked, input="").stdout)
        return seen.stdout.strip().partition("=")[2].lower()

    def process() -> object:
        return installation.ask("status")["parts"]["ldap"]["pid"]

    before, serves = shown(), process()
    admin = installation.ask("token", "create", "for the LDAPS test", "--role", "admin")["secret"]
    revoke = ("revoke", before.rjust(40, "0"), "--reason", "superseded")
    installation.sceau(*revoke, "--token-file", "-", input=admin)
    # By this run or the worker's own, whichever has the job's lock first.
    within(20, lambda: bool(installation.sceau("jobs", "run", "ldaps-certificate")) and shown() != before)
    assert process() == serves
