"""How a start settles where it listens: nothing is kept of an address that cannot be had."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.cli.demonstration import demonstration
from api.installation.bring_up import ldap_readers_of, make_secrets, settle
from api.settings import Secret, child_environment, load_settings, passphrase
from directory.base.errors import Refusal
from tests.ports import free_port


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


def ports() -> dict[str, int]:
    return {"port": free_port(), "ldap_port": free_port(), "ldaps_port": free_port()}


def test_a_taken_port_is_refused_and_not_kept(tmp_path: Path, taken: int) -> None:
    with pytest.raises(Refusal, match="--port"):
        settle(tmp_path, {**ports(), "port": taken}, print)
    assert not (tmp_path / "settings.toml").exists()


def test_the_first_ports_that_could_be_had_are_what_certificates_point_to(tmp_path: Path) -> None:
    first = settle(tmp_path, ports(), print)
    second = settle(tmp_path, ports(), print)
    assert first.base_url == f"http://127.0.0.1:{first.port}"
    assert second.base_url == f"http://127.0.0.1:{second.port}"


def test_once_there_is_a_ca_what_certificates_point_to_stays_and_a_new_port_is_told(tmp_path: Path) -> None:
    first = settle(tmp_path, ports(), print)
    first.ca_keys.mkdir()
    told: list[str] = []
    second = settle(tmp_path, ports(), told.append)
    assert second.base_url == first.base_url
    assert str(second.port) in told[0]


def test_two_listeners_on_one_port_are_refused(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(Refusal) as refused:
        settle(tmp_path, {"port": port, "ldap_port": port, "ldaps_port": free_port()}, print)
    assert refused.value.code == "one-port-twice"


def test_ldap_is_open_only_where_a_setting_or_the_demo_opens_it(tmp_path: Path, taken: int) -> None:
    closed = settle(tmp_path, {**ports(), "ldap_port": taken}, print)
    # What nobody listens on need not be free.
    assert set(ldap_readers_of(closed)) == {"ldap-guarded"}
    with pytest.raises(Refusal, match="--ldap-port"):
        settle(tmp_path, demonstration().SETTINGS, print)
    opened = settle(tmp_path, {**ports(), **demonstration().SETTINGS}, print)
    assert set(ldap_readers_of(opened)) == {"ldap-guarded", "ldap-open"}
    assert [url for each in ldap_readers_of(opened).values() for url in each.public_urls] == [
        f"ldaps://127.0.0.1:{opened.ldaps_port}",
        f"ldap://127.0.0.1:{opened.ldap_port}",
    ]


def test_a_passphrase_comes_from_the_environment_or_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(tmp_path)
    make_secrets(settings, print)
    assert passphrase(settings, Secret.CA) == settings.ca_passphrase.read_bytes()
    assert settings.ca_passphrase.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("SCEAU_CA_PASSPHRASE", "from the environment")
    assert passphrase(settings, Secret.CA) == b"from the environment"


def test_a_passphrase_handed_in_is_not_made_as_a_file_and_reaches_no_other_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCEAU_CA_PASSPHRASE", "for the signer")
    monkeypatch.setenv("SCEAU_WEB_PASSPHRASE", "for web and worker")
    settings = load_settings(tmp_path)
    make_secrets(settings, print)
    assert not (tmp_path / "secrets").exists()
    assert "for the signer" in child_environment(settings, Secret.CA).values()
    assert "for the signer" not in child_environment(settings, Secret.WEB).values()
    assert not {"for the signer", "for web and worker"} & set(child_environment(settings).values())


def test_a_passphrase_that_is_nowhere_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        passphrase(load_settings(tmp_path), Secret.WEB)
    assert refused.value.code == "passphrase-missing"
