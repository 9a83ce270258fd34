"""An Ordre's emergency measures, judged from outside: at once by one registrar, given back by two."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.stories.installation.conftest import Installation, within
from tests.stories.installation.test_road import (
    authorities,
    certificate_in_ldap,
    crl_of,
    ocsp,
    verdict,
    verify,
)

Person = tuple[str, str, str]


def test_a_strike_off_is_seen_by_verdict_ocsp_ldap_and_crl_in_time(
    installation: Installation, person: Person, tmp_path: Path
) -> None:
    address, serial, national_id = person
    root, issuer = authorities(installation, tmp_path)
    pem = certificate_in_ldap(installation, address, tmp_path)
    assert verdict(installation, address) == ("allowed", [])
    body = {"kind": "struck-off", "reason": "decision of a test"}
    taken = installation.post(f"/v1/practitioners/{national_id}/measures", "registrar_a", body)
    assert taken.status_code == 201, taken.text
    # With the answer; OCSP, LDAP and CRL within what is promised (P1, P7): two processes test at a time.
    assert verdict(installation, address) == ("refused", ["holder-struck-off", "certificate-revoked"])
    within(10, lambda: ": revoked" in ocsp(installation, pem, issuer, root, "-no_nonce"))
    within(30, lambda: address not in installation.search(f"(mail={address})", "mail"))
    within(60, lambda: verify(pem, root, issuer, crl_of(pem, tmp_path)).returncode != 0)
    history = installation.get(f"/v1/certificates/{serial}/history", who="auditor").json()
    assert history["events"][-1]["reason"] == "privilegeWithdrawn"


def test_a_suspension_holds_until_two_registrars_lift_it(
    installation: Installation, person: Person, tmp_path: Path
) -> None:
    address, _, national_id = person
    root, issuer = authorities(installation, tmp_path)
    pem = certificate_in_ldap(installation, address, tmp_path)
    measure = installation.ask(
        "measure", "take", national_id, "--kind", "suspended", "--reason", "a test", "--as", "registrar_a"
    )["id"]
    assert verdict(installation, address) == ("refused", ["holder-suspended", "certificate-on-hold"])
    within(10, lambda: ": revoked" in ocsp(installation, pem, issuer, root, "-no_nonce"))
    assert "certificateHold" in ocsp(installation, pem, issuer, root, "-no_nonce")
    within(30, lambda: address not in installation.search(f"(mail={address})", "mail"))
    lifting, body = f"/v1/measures/{measure}/lifting", {"reason": "over"}
    assert installation.post(lifting, "registrar_a", body).json()["state"] == "lifting-asked"
    assert installation.post(lifting, "registrar_a", body).json()["code"] == "self-approval"
    assert verdict(installation, address)[0] == "refused"
    assert installation.post(lifting, "registrar_b", body).json()["state"] == "lifted"
    assert verdict(installation, address) == ("allowed", [])
    within(10, lambda: ": good" in ocsp(installation, pem, issuer, root, "-no_nonce"))
    within(
        30, lambda: "userCertificate" in installation.search(f"(mail={address})", "userCertificate;binary")
    )


def test_a_suspension_with_dates_is_followed_by_every_channel_both_ways(
    installation: Installation, person: Person, tmp_path: Path
) -> None:
    address, _, national_id = person
    root, issuer = authorities(installation, tmp_path)
    pem = certificate_in_ldap(installation, address, tmp_path)
    begins = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
    asked = {
        "kind": "suspended", "reason": "a test", "from": begins.isoformat(),
        "until": (begins + timedelta(seconds=4)).isoformat(),
    }  # fmt: skip
    taken = installation.post(f"/v1/practitioners/{national_id}/measures", "registrar_a", asked)
    assert (taken.status_code, taken.json()["state"]) == (201, "to-come"), taken.text
    assert verdict(installation, address) == ("allowed", [])
    within(30, lambda: "holder-suspended" in verdict(installation, address)[1])
    within(10, lambda: "certificateHold" in ocsp(installation, pem, issuer, root, "-no_nonce"))
    within(30, lambda: address not in installation.search(f"(mail={address})", "mail"))
    within(30, lambda: verdict(installation, address) == ("allowed", []))
    within(10, lambda: ": good" in ocsp(installation, pem, issuer, root, "-no_nonce"))
    within(
        30, lambda: "userCertificate" in installation.search(f"(mail={address})", "userCertificate;binary")
    )


def test_a_namesake_struck_off_gets_everything_back_by_two(
    installation: Installation, person: Person, tmp_path: Path
) -> None:
    address, serial, national_id = person
    root, issuer = authorities(installation, tmp_path)
    body = {"kind": "struck-off", "reason": "a namesake"}
    taken = installation.post(f"/v1/practitioners/{national_id}/measures", "registrar_a", body).json()
    assert verdict(installation, address) == ("refused", ["holder-struck-off", "certificate-revoked"])
    annulment, reason = f"/v1/measures/{taken['id']}/annulment", {"reason": "not this one"}
    asked = installation.post(annulment, "registrar_a", reason).json()
    assert asked["state"] == "in-force"
    agreed = reason | {"confirms": asked["annulment_asked"]}
    assert installation.post(annulment, "registrar_b", agreed).json()["state"] == "annulled"
    within(60, lambda: verdict(installation, address) == ("allowed", []))
    path = f"/v1/practitioners/{national_id}/measures"
    (told,) = [
        one for one in installation.get(path, who="registrar_a").json()["items"] if one["replacements"]
    ]
    (given,) = told["replacements"]
    assert (given["serial"], given["refused"]) == (serial, None)
    within(
        30, lambda: "userCertificate" in installation.search(f"(mail={address})", "userCertificate;binary")
    )
    pem = certificate_in_ldap(installation, address, tmp_path)
    within(10, lambda: ": good" in ocsp(installation, pem, issuer, root, "-no_nonce"))
    history = installation.get(f"/v1/certificates/{serial}/history", who="auditor").json()
    assert history["events"][-1]["reason"] == "privilegeWithdrawn"
