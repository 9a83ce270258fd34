"""The slapd a first run brings along: it starts, says clearly why it cannot, and keeps what it was given."""

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from api.embedded import slapd as module
from api.embedded.slapd import EmbeddedSlapd
from api.embedded.slapd_readers import OpenSlapd
from directory.base.errors import Kind, Refusal
from directory.ldap.client import LdapClient
from directory.ldap.entry import base_entries
from directory.ldap.plan import Add
from tests.directory.ldap.conftest import SUFFIX, Server
from tests.ports import free_port


def plant(slapd: EmbeddedSlapd) -> None:
    client = LdapClient(slapd.url)
    for entry in base_entries(slapd.suffix):
        client.apply(Add(entry.dn, entry.attributes))
    client.close()


def planted(slapd: EmbeddedSlapd) -> bool:
    client = LdapClient(slapd.url)
    try:
        return client.read(slapd.suffix) is not None
    finally:
        client.close()


def test_what_was_written_survives_a_kill_and_a_new_configuration(own_server: Server) -> None:
    plant(own_server.slapd)
    own_server.kill()
    own_server.start()
    assert planted(own_server.slapd)


def test_a_folder_too_deep_for_a_socket_works_all_the_same(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 20) / "ldap"
    server = Server(EmbeddedSlapd(deep, SUFFIX))
    try:
        server.start()
        plant(server.slapd)
        assert not server.slapd.socket.is_relative_to(deep)
        assert stat.S_IMODE(server.slapd.socket.parent.stat().st_mode) == 0o700
    finally:
        server.stop()
        shutil.rmtree(server.slapd.socket.parent)


@pytest.mark.parametrize("trap", ["folder of another account", "link"])
def test_a_folder_somebody_laid_out_for_the_socket_is_not_used(
    trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slapd = EmbeddedSlapd(tmp_path / ("deep" * 20) / "ldap", SUFFIX)
    folder = slapd.socket.parent
    if trap == "link":
        folder.symlink_to(tmp_path)
    else:
        folder.mkdir()
        owner = folder.stat().st_uid
        monkeypatch.setattr("os.geteuid", lambda: owner + 1)
    try:
        with pytest.raises(Refusal) as refused:
            slapd.make()
    finally:
        folder.unlink() if trap == "link" else folder.rmdir()
    assert refused.value.code == "socket-folder-taken"
    assert not slapd.folder.exists()


def test_another_suffix_and_a_bare_engine_work(tmp_path: Path) -> None:
    server = Server(EmbeddedSlapd(tmp_path / "l", "dc=sante,dc=example", port=free_port(), bare=True))
    try:
        server.start()
        plant(server.slapd)
        assert planted(server.slapd)
    finally:
        server.stop()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(Refusal) as refused:
            OpenSlapd(tmp_path / "l", SUFFIX, data=tmp_path, port=port).make()
    assert refused.value.code == "port-taken"
    assert str(port) in refused.value.text


def test_a_missing_slapd_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEARCHED", (str(tmp_path),))
    with pytest.raises(Refusal) as refused:
        EmbeddedSlapd(tmp_path / "l", SUFFIX).make()
    assert refused.value.code == "slapd-missing"
    assert "apt-get install slapd" in refused.value.text


def test_making_it_again_leaves_a_running_server_alone(own_server: Server) -> None:
    plant(own_server.slapd)
    own_server.slapd.make()
    assert planted(own_server.slapd)


def test_a_confined_slapd_is_run_from_a_copy_that_follows_upgrades(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What Ubuntu's package brings; this machine need not enforce it for the copy to be run.
    (tmp_path / "profile").touch()
    monkeypatch.setattr(module, "APPARMOR_PROFILE", tmp_path / "profile")
    server = Server(EmbeddedSlapd(tmp_path / "l", SUFFIX))
    copy = tmp_path / "l" / "bin" / "slapd"
    try:
        server.start()
        assert str(copy) in server.slapd.command()
        assert server.process is not None
        assert Path(f"/proc/{server.process.pid}/exe").resolve() == copy.resolve()
        plant(server.slapd)
    finally:
        server.stop()
    copy.write_bytes(b"of an older release")
    server.slapd.make()
    assert copy.stat().st_size > 100_000


def test_a_swap_cut_short_finds_its_old_data_again(own_server: Server) -> None:
    plant(own_server.slapd)
    own_server.stop()
    own_server.slapd.data.rename(own_server.slapd.folder / "data.old")
    own_server.start()
    assert planted(own_server.slapd)


def test_a_silent_server_is_waited_for_no_longer_than_asked(tmp_path: Path) -> None:
    slapd = EmbeddedSlapd(tmp_path / "l", SUFFIX)
    slapd.make()
    with pytest.raises(Refusal) as refused:
        slapd.wait_ready(0.1)
    assert refused.value.code == "slapd-silent"


def tree(people: int) -> Iterator[bytes]:
    """LDIF of a tree with so many people; each has a picture, so that a small disk is soon full."""
    yield f"dn: {SUFFIX}\nobjectClass: organization\no: sceau\n\n".encode()
    for number in range(people):
        told = f"dn: uid=p{number},{SUFFIX}\nobjectClass: inetOrgPerson\ncn: X\nsn: X\nuid: p{number}\n"
        yield told.encode() + b"jpegPhoto:: " + b"/9j/" * 1000 + b"\n\n"


def test_a_broken_ldif_is_refused_with_slapds_own_words(own_server: Server) -> None:
    entries = [*tree(3), f"dn: uid=x,{SUFFIX}\nobjectClass: nonsense\n\n".encode(), *([b"\n"] * 100_000)]
    with pytest.raises(Refusal) as refused:
        own_server.slapd.load(entries)
    assert refused.value.code == "slapd-not-made"
    assert "nonsense" in refused.value.text


def test_entries_that_cannot_be_made_end_the_load_and_leave_no_half_tree(own_server: Server) -> None:
    def cut_short() -> Iterator[bytes]:
        yield from tree(10)
        raise Refusal(Kind.UNAVAILABLE, "record-away", "The record went away.")

    plant(own_server.slapd)
    with pytest.raises(Refusal) as refused:
        own_server.slapd.load(cut_short())
    assert refused.value.code == "record-away"
    assert not (own_server.slapd.folder / "data.next").exists()
    assert planted(own_server.slapd)


def test_a_tree_too_large_for_its_place_leaves_the_served_one_alone(own_server: Server) -> None:
    plant(own_server.slapd)
    with pytest.raises(Refusal) as refused:
        replace(own_server.slapd, max_size=1 << 20).load(tree(2000))
    assert refused.value.code == "slapd-not-made"
    assert not (own_server.slapd.folder / "data.next").exists()
    assert planted(own_server.slapd)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_leaves_the_served_tree_alone(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this container mounts nothing")
    server = Server(EmbeddedSlapd(disk / "ldap", SUFFIX))
    try:
        server.start()
        plant(server.slapd)
        with pytest.raises(Refusal) as refused:
            server.slapd.load(tree(2000))
        assert refused.value.code == "slapd-not-made"
        assert planted(server.slapd)
    finally:
        server.stop()
        subprocess.run(["umount", str(disk)], check=True)
