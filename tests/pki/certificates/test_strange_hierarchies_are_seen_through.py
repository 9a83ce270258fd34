"""Hierarchies nobody should build, made by certomancer: crossed, looped, doubled, too deep, half revoked."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from certomancer import CertomancerConfig, PKIArchitecture
from certomancer.registry import ArchLabel, CertLabel, ServiceLabel
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from directory.base.errors import Refusal
from pki.certificates import path_validation

AT = datetime(2026, 9, 1, 12, tzinfo=UTC)
KEYS = ("root", "other-root", "persons", "twin", "loop-a", "loop-b", "deep", "deeper", "leaf", "stray")
LISTED = ("root", "other-root", "persons", "loop-a", "loop-b", "deep", "deeper", "leaf")


def point(issuer: str) -> dict[str, Any]:
    """Where the CRL of this issuer is: certomancer's CRLs are scoped to that URL."""
    where = {"schema": "crl-dist-url", "params": {"crl-repo-names": [issuer]}}
    return {"id": "crl_distribution_points", "smart-value": where}


def authority(issuer: str, key: str, *, depth: int | None = None, **more: Any) -> dict[str, Any]:
    constraints = {"ca": True} | ({} if depth is None else {"path-len-constraint": depth})
    usage = {"schema": "key-usage", "params": ["key_cert_sign", "crl_sign"]}
    return {
        "issuer": issuer,
        "issuer-cert": issuer,
        "authority-key": issuer,
        "subject-key": key,
        "validity": {"valid-from": "2020-01-01T00:00:00+0000", "valid-to": "2040-01-01T00:00:00+0000"},
        "extensions": [
            {"id": "basic_constraints", "critical": True, "value": constraints},
            {"id": "key_usage", "critical": True, "smart-value": usage},
            point(issuer),
        ],
    } | more


def leaf(issuer: str, key: str = "leaf", **more: Any) -> dict[str, Any]:
    return {
        "subject": "leaf",
        "subject-key": key,
        "issuer": issuer,
        "issuer-cert": issuer,
        "authority-key": issuer,
        "validity": {"valid-from": "2026-01-01T00:00:00+0000", "valid-to": "2027-01-01T00:00:00+0000"},
        "extensions": [{"id": "basic_constraints", "critical": True, "value": {"ca": False}}, point(issuer)],
    } | more


ENDED = {"valid-from": "2020-01-01T00:00:00+0000", "valid-to": "2026-01-01T00:00:00+0000"}
GONE = {"revoked-since": "2026-08-01T00:00:00+0000", "reason": "ca_compromise"}
CERTIFICATES = {
    "root": authority("root", "root", subject="root"),
    "other-root": authority("other-root", "other-root", subject="other-root"),
    "persons": authority("root", "persons", subject="persons", depth=0),
    "persons-ended": authority("root", "persons", subject="persons", validity=ENDED),
    "persons-twin": authority("root", "twin", subject="persons"),
    "root-crossed": authority("other-root", "root", subject="root"),
    # certomancer needs a beginning; the chain check need not see one.
    "loop-b-itself": authority("loop-b", "loop-b", subject="loop-b") | {"issuer-cert": "loop-b-itself"},
    "loop-a": authority("loop-b", "loop-a", subject="loop-a") | {"issuer-cert": "loop-b-itself"},
    "loop-b": authority("loop-a", "loop-b", subject="loop-b"),
    "deep": authority("persons", "deep", subject="deep"),
    "deeper": authority("root", "deeper", subject="deeper", revocation=GONE),
    "leaf": leaf("persons"),
    "leaf-of-loop": leaf("loop-a"),
    "leaf-of-deep": leaf("deep"),
    "leaf-of-deeper": leaf("deeper"),
    "leaf-of-leaf": leaf("leaf", key="stray", subject="stray"),
    "leaf-revoked": leaf("persons", revocation=GONE),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> PKIArchitecture:
    folder = tmp_path_factory.mktemp("keys")
    for name in KEYS:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{name}.pem").write_bytes(pem)
    crls = {
        name: {"for-issuer": name, "signing-key": name, "simulated-update-schedule": "P30D",
               "issuer-cert": name}
        for name in LISTED
    }  # fmt: skip
    config = {
        "keysets": {"all": {"keys": {name: {"path": f"{name}.pem"} for name in KEYS}}},
        "pki-architectures": {
            "strange": {
                "keyset": "all",
                "entities": {name: {"common-name": name} for name in KEYS},
                "certs": CERTIFICATES,
                "services": {"crl-repo": crls},
            }
        },
    }
    loaded = CertomancerConfig(
        config, key_search_dir=str(folder), external_url_prefix="http://strange.example"
    )
    return loaded.get_pki_arch(ArchLabel("strange"))


def certificate(made: PKIArchitecture, name: str) -> x509.Certificate:
    return x509.load_der_x509_certificate(made.get_cert(CertLabel(name)).dump())


def lists(made: PKIArchitecture) -> list[x509.CertificateRevocationList]:
    found = [made.service_registry.get_crl(ServiceLabel(name), at_time=AT).dump() for name in LISTED]
    return [x509.load_der_x509_crl(der) for der in found]


def path_of(made: PKIArchitecture, name: str, anchor: str, others: Sequence[str]) -> list[str]:
    known = {certificate(made, one): one for one in CERTIFICATES}
    found = path_validation.find_path(
        certificate(made, name),
        certificate(made, anchor),
        [certificate(made, one) for one in others],
        lists(made),
        AT,
    )
    return [known[one] for one in found]


EVERYTHING = [name for name in CERTIFICATES if name not in ("root", "other-root")]


def test_the_right_one_of_three_of_the_same_name_is_found(made: PKIArchitecture) -> None:
    for order in (EVERYTHING, EVERYTHING[::-1]):
        assert path_of(made, "leaf", "root", order) == ["leaf", "persons"]


def test_who_trusts_the_other_root_alone_comes_over_the_cross_certificate(made: PKIArchitecture) -> None:
    assert path_of(made, "leaf", "other-root", EVERYTHING) == ["leaf", "persons", "root-crossed"]
    without = [name for name in EVERYTHING if name != "root-crossed"]
    with pytest.raises(Refusal) as caught:
        path_of(made, "leaf", "other-root", without)
    assert caught.value.code == "path-not-found"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("leaf-of-loop", "path-not-found"),
        ("leaf-of-deep", "path-too-long"),
        ("leaf-of-deeper", "path-revoked"),
        ("leaf-of-leaf", "path-not-authority"),
        ("leaf-revoked", "path-revoked"),
    ],
)
def test_what_must_not_be_trusted_is_refused_and_the_search_ends(
    made: PKIArchitecture, name: str, code: str
) -> None:
    with pytest.raises(Refusal) as caught:
        path_of(made, name, "root", EVERYTHING)
    assert caught.value.code == code
