"""Settings come from the file and then the environment; nonsense and unknown names refuse to start."""

import dataclasses
from pathlib import Path

import pytest

from api.installation.ca_keys import ca_keys
from api.installation.status import as_owner
from api.settings import DATABASE_PARTS, Settings, child_environment, load_settings, save_settings
from api.wiring import build, database_url
from directory.base.errors import Kind, Refusal
from pki.impediments.causes import GRACES
from pki.signing.file import FileKeys
from pki.signing.pkcs11 import TokenKeys
from pki.signing.token_uri import TokenPlace


def test_without_anything_said_the_defaults_hold(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {}) == Settings(state=tmp_path)


def test_the_graces_of_the_settings_are_those_of_the_rules(tmp_path: Path) -> None:
    container = build(Settings(state=tmp_path, database_url="postgresql+psycopg://localhost/none"))
    assert container.graces == GRACES


def test_the_file_wins_over_defaults_and_the_environment_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('port = 8081\nldap_port = 4389\nsuffix = "o=file,c=fr"\n')
    found = load_settings(tmp_path, {"SCEAU_PORT": "8082", "SCEAU_SUFFIX": "o=env,c=fr", "PORT": "1"})
    assert (found.port, found.ldap_port, found.ldaps_port, found.suffix) == (8082, 4389, 3636, "o=env,c=fr")


def test_the_state_folder_is_the_one_given_then_the_environments_then_var(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = {"SCEAU_STATE": str(tmp_path / "elsewhere")}
    assert load_settings(tmp_path / "given", elsewhere).state == tmp_path / "given"
    assert load_settings(None, elsewhere).state == tmp_path / "elsewhere"
    assert load_settings(None, {}).state == tmp_path / "var"


def test_a_settings_file_moves_with_its_folder_and_cannot_name_another(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text('state = "/somewhere/else"\n')
    assert load_settings(tmp_path, {}).state == tmp_path


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("port", "0", "port"),
        ("port", "65536", "port"),
        ("ldap_port", "-1", "ldap_port"),
        ("ldaps_port", "ldaps", "ldaps_port: 'ldaps' is not a int"),
        ("crl_hours", "24", "crl_hours"),
        ("crl_hours", "241", "crl_hours"),
        ("ocsp_hours", "7", "ocsp_hours"),
        ("ocsp_hours", "241", "ocsp_hours"),
        ("verdict_minutes", "0", "verdict_minutes"),
        ("verdict_minutes", "721", "verdict_minutes"),
        ("suffix", "sceau", "suffix"),
        ("suffix", "o=a+b,c=fr", "suffix"),
        ("suffix", "o=a,\nolcRootPW=x", "suffix"),
        ("strict_rpps", "perhaps", "strict_rpps: 'perhaps' is not a bool"),
    ],
)
def test_nonsense_is_refused_in_words_that_name_the_setting(
    tmp_path: Path, name: str, value: str, says: str
) -> None:
    with pytest.raises(Refusal, match=says) as refused:
        load_settings(tmp_path, {f"SCEAU_{name.upper()}": value})
    assert (refused.value.kind, refused.value.code) == (Kind.MALFORMED, "bad-setting")


@pytest.mark.parametrize(
    ("name", "value"),
    [("crl_hours", 25), ("crl_hours", 240), ("ocsp_hours", 8), ("verdict_minutes", 720), ("port", 65535)],
)
def test_what_lies_on_the_bound_is_allowed(tmp_path: Path, name: str, value: int) -> None:
    assert getattr(load_settings(tmp_path, {f"SCEAU_{name.upper()}": str(value)}), name) == value


@pytest.mark.parametrize(
    ("said", "meant"), [("true", True), ("1", True), ("False", False), ("0", False), ("TRUE", True)]
)
def test_yes_and_no_are_told_apart(tmp_path: Path, said: str, meant: object) -> None:
    assert load_settings(tmp_path, {"SCEAU_STRICT_RPPS": said}).strict_rpps is meant


def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text("prot = 8081\nport = 8081\n")
    with pytest.raises(Refusal, match=r"unknown settings: prot\."):
        load_settings(tmp_path, {})


def test_an_unknown_name_in_the_environment_is_nobodys_business(tmp_path: Path) -> None:
    # SCEAU_TOKEN and SCEAU_LOCK are read elsewhere, and containers set names of their own.
    assert load_settings(tmp_path, {"SCEAU_TOKEN": "x", "SCEAU_LOCK": "y"}) == Settings(state=tmp_path)


def test_what_is_saved_is_read_back_and_what_was_kept_stays(tmp_path: Path) -> None:
    state = tmp_path / "new"
    save_settings(state, {"port": 8081, "strict_rpps": False, "host": None, "suffix": 'o="é\\",c=fr'})
    save_settings(state, {"port": 8082, "ldap_port": 4389})
    found = load_settings(state, {})
    assert (found.port, found.ldap_port, found.strict_rpps, found.host) == (8082, 4389, False, "127.0.0.1")
    assert found.suffix == 'o="é\\",c=fr'


def test_a_saved_file_is_read_by_its_owner_only(tmp_path: Path) -> None:
    save_settings(tmp_path, {"database_url": "postgresql+psycopg://someone:secret@db.example/sceau"})
    assert (tmp_path / "settings.toml").stat().st_mode & 0o777 == 0o600


def test_nonsense_is_not_kept(tmp_path: Path) -> None:
    save_settings(tmp_path, {"port": 8081})
    with pytest.raises(Refusal):
        save_settings(tmp_path, {"port": 99999})
    assert load_settings(tmp_path, {}).port == 8081


def test_urls_in_certificates_follow_the_address_until_they_are_fixed(tmp_path: Path) -> None:
    assert Settings(state=tmp_path, port=8081).base_url == "http://127.0.0.1:8081"
    assert Settings(state=tmp_path, public_url="https://pki.example/").base_url == "https://pki.example"


def test_a_part_is_told_where_the_state_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCEAU_PORT", "8083")
    told = child_environment(Settings(state=tmp_path))
    assert load_settings(None, told) == Settings(state=tmp_path, port=8083)


def test_each_part_gets_its_own_login_to_the_record_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCEAU_DATABASE_URL", "postgresql+psycopg://owner@/sceau")
    for part in DATABASE_PARTS:
        monkeypatch.setenv(f"SCEAU_{part.upper()}_DATABASE_URL", f"postgresql+psycopg://{part}@/sceau")
    settings = load_settings(tmp_path)
    for part in DATABASE_PARTS:
        told = load_settings(None, child_environment(settings, None, (part,)))
        assert {name: told.url_of(name) for name in ("", *DATABASE_PARTS) if told.url_of(name)} == {
            part: f"postgresql+psycopg://{part}@/sceau"
        }
        assert database_url(told, part) == f"postgresql+psycopg://{part}@/sceau"
    assert not [name for name in child_environment(settings, None, ()) if name.endswith("DATABASE_URL")]
    # The ceremony of a first run writes as the owner.
    told = load_settings(None, child_environment(settings, None, ("signer", "")))
    assert database_url(told) == "postgresql+psycopg://owner@/sceau"


def test_a_part_without_a_login_of_its_own_takes_the_owners(tmp_path: Path) -> None:
    one = Settings(state=tmp_path, database_url="postgresql+psycopg://owner@/sceau")
    assert database_url(one, "web") == one.database_url
    assert as_owner(one) == list(DATABASE_PARTS)
    some = dataclasses.replace(one, web_database_url="postgresql+psycopg://web@/sceau")
    assert database_url(some, "web") == "postgresql+psycopg://web@/sceau"
    assert as_owner(some) == ["worker", "signer", "gate", "log"]


def test_the_embedded_record_has_a_login_for_each_part(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path)
    assert as_owner(settings) == []
    for part in DATABASE_PARTS:
        assert database_url(settings, part).startswith(f"postgresql+psycopg://sceau_{part}@/sceau?")
        assert database_url(settings, part).endswith(f"/secrets/database-{part}")


TOKEN = "pkcs11:token=sceau-ca?module-path=/usr/lib/a.so"


def test_ca_keys_are_files_or_on_the_token_that_is_named(tmp_path: Path) -> None:
    with_secret = save_secret(tmp_path)
    assert ca_keys(with_secret) == FileKeys(tmp_path / "ca", b"1234")
    on_token = dataclasses.replace(with_secret, signer_keys=TOKEN)
    assert on_token.token == TokenPlace(Path("/usr/lib/a.so"), "sceau-ca")
    assert isinstance(ca_keys(on_token), TokenKeys)


def save_secret(state: Path) -> Settings:
    settings = Settings(state=state)
    settings.ca_passphrase.parent.mkdir()
    settings.ca_passphrase.write_text("1234\n")
    return settings


@pytest.mark.parametrize(
    "words", ["token", "", "FILE", f"{TOKEN}&pin-value=1234", f"{TOKEN}&pin-source=/1234"]
)
def test_a_place_of_keys_that_is_none_is_refused_and_no_pin_repeated(tmp_path: Path, words: str) -> None:
    with pytest.raises(Refusal) as refused:
        Settings(state=tmp_path, signer_keys=words)
    assert refused.value.code == "bad-setting"
    assert "signer_keys" in refused.value.text
    assert "1234" not in refused.value.text


def test_every_setting_says_what_it_is() -> None:
    assert [f.name for f in dataclasses.fields(Settings) if not f.metadata["doc"].endswith(".")] == []
