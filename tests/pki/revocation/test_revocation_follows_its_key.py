"""A lost key takes its certificates along, a holder revokes with it, holds end, reasons are corrected."""

import json
from base64 import urlsafe_b64encode
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, RSAKey
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from directory.access import Token
from directory.base.db import transaction
from directory.base.errors import Refusal
from pki.certificates import der
from pki.model import IssuedCertificate, Revocation, RevocationReason, Serial
from pki.monitoring import certificate_history
from pki.ocsp import store as ocsp_store
from pki.revocation import proof_of_possession, rules, suspension
from pki.revocation import release as releasing
from pki.revocation.reasons import HOLDERS, WORDS
from pki.tlog import store as tlog_store
from tests.factories import seed_practitioner
from tests.pki.conftest import Issue, Key, enrol, new_key
from tests.pki.revocation.test_revocation import (
    ADMIN,
    HOLD,
    LOST,
    OPERATOR,
    events,
    release,
    revoke,
    revoke_as,
)

AUDIENCE = "https://sceau.example/v1/revocations"
TWIN = "7" + "0" * 38 + "1"


def signed(key: Key | OctKey, algorithm: str = "ES256", **claims: Any) -> bytes:
    if isinstance(key, OctKey):
        made: Any = key
    else:
        made = (
            ECKey.import_key(key) if isinstance(key, ec.EllipticCurvePrivateKey) else RSAKey.import_key(key)
        )
    return jws.serialize_compact({"alg": algorithm}, json.dumps(claims), made, [algorithm]).encode()


def prove(engine: Engine, now: datetime, request: bytes) -> Revocation:
    with transaction(engine) as connection:
        return proof_of_possession.revoke_with_proof(connection, now=now, request=request, audience=AUDIENCE)


def asked(issued: IssuedCertificate, now: datetime, **other: Any) -> dict[str, Any]:
    said = {"serial": issued.serial, "reason": "keyCompromise", "iat": int(now.timestamp()), "aud": AUDIENCE}
    return said | other


def restate(
    engine: Engine, now: datetime, serial: Serial, reason: RevocationReason, token: Any = ADMIN
) -> Revocation:
    with transaction(engine) as connection:
        return proof_of_possession.restate_as(
            connection, now=now, token=token, serial=serial, reason=reason, comment="found online"
        )


def refused(code: str) -> Any:
    return pytest.raises(Refusal, check=lambda refusal: refusal.code == code)


_COPIED = "profile, shard, mailbox, practitioner, spki_sha256"
_TWINS = tuple(
    f"INSERT INTO {table} (serial, authority_id, {_COPIED}, {rest}) SELECT :twin, authority_id, {_COPIED},"
    f" {rest.replace(' sha256', made)} FROM {table} WHERE serial = :serial"
    for table, rest, made in (
        ("reservation", "tbs, tbs_sha256, lints, requested_by, reserved_at", ""),
        ("certificate", "subject, der, sha256, not_before, not_after, issued_at", " sha256(der || 'twin')"),
    )
)


def twin(engine: Engine, issued: IssuedCertificate) -> Serial:
    """Another certificate on the same key, as one renewed or imported would be."""
    with engine.begin() as connection:
        for statement in _TWINS:
            connection.execute(text(statement), {"twin": TWIN, "serial": issued.serial})
    return Serial(TWIN)


def test_every_reason_has_a_sentence_in_both_languages() -> None:
    assert set(WORDS) == set(RevocationReason)
    for words in WORDS.values():
        for sentence in (words.french, words.english):
            assert sentence.endswith(".")
            assert len(sentence) > 40
    assert HOLDERS.isdisjoint({RevocationReason.CA_COMPROMISE, RevocationReason.PRIVILEGE_WITHDRAWN})


@pytest.mark.parametrize("reason", sorted(HOLDERS, key=lambda one: one.value))
def test_a_holder_revokes_with_the_key_alone(
    engine: Engine, issue: Issue, now: datetime, reason: RevocationReason
) -> None:
    key = new_key()
    issued = issue(key)
    done = prove(engine, now, signed(key, **asked(issued, now, reason=reason.value, comment="lost")))
    assert (done.serial, done.reason, done.actor) == (issued.serial, reason, f"key:{issued.serial}")
    assert len(events(engine, issued.serial)) == 1


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
def test_rsa_keys_prove_themselves_as_well(
    engine: Engine, issue: Issue, now: datetime, algorithm: str
) -> None:
    key = rsa.generate_private_key(65537, 3072)
    issued = issue(key)
    assert prove(engine, now, signed(key, algorithm, **asked(issued, now))).reason is LOST


def sealed(key: Key, header: object, claims: dict[str, Any]) -> bytes:
    """A compact JWS by the library of X.509 alone: that of JOSE would not write such headers."""
    return sealed_as_written(key, json.dumps(header), json.dumps(claims))


def sealed_as_written(key: Key, header: str, claims: str) -> bytes:
    segments = [urlsafe_b64encode(one.encode()).rstrip(b"=") for one in (header, claims)]
    raw = key.sign(b".".join(segments), ec.ECDSA(SHA256()))  # type: ignore[union-attr, call-arg, arg-type]
    both = b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(raw))
    return b".".join((*segments, urlsafe_b64encode(both).rstrip(b"=")))


@pytest.mark.parametrize(
    "header",
    [
        {"iat": 1}, {"nonce": "oFvnlFP1wIhRlYS2jTaXbA"}, {"url": "https://sceau.example/v1/revocations"},
        {"x5c": ["A" * 3000]}, {"anything": {"of": ["others"]}},
    ],
    ids=str,
)  # fmt: skip
def test_headers_that_are_not_known_are_ignored(
    engine: Engine, issue: Issue, now: datetime, header: dict[str, Any]
) -> None:
    key = new_key()
    request = sealed(key, {"alg": "ES256"} | header, asked(issue(key), now))
    assert prove(engine, now, request).reason is LOST


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["nonce"], "nonce": "x"}, {"crit": ["alg"]}, {"crit": []}, {"crit": 5}, {"crit": [[1]]},
        {"crit": ["b64"], "b64": False}, {"crit": ["absent"]}, {"kid": 7}, {"b64": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_headers_that_must_be_understood_are_refused_and_named_so(
    engine: Engine, issue: Issue, now: datetime, header: dict[str, Any]
) -> None:
    key = new_key()
    issued = issue(key)
    request = sealed(key, {"alg": "ES256"} | header, asked(issued, now))
    with refused("malformed-revocation-request") as refusal:
        prove(engine, now, request)
    assert ("critical" in str(refusal.value)) is ("crit" in header and "b64" not in header)
    assert events(engine, issued.serial) == []


@pytest.mark.parametrize("header", [["alg"], "alg", 5, None, {"alg": 5}, {"alg": ["ES256"]}, {}], ids=str)
def test_a_header_that_is_no_header_is_refused(
    engine: Engine, issue: Issue, now: datetime, header: object
) -> None:
    key = new_key()
    with pytest.raises(Refusal) as refusal:
        prove(engine, now, sealed(key, header, asked(issue(key), now)))
    assert refusal.value.code in {"malformed-revocation-request", "bad-proof-of-possession"}


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('{"alg":"RS256","alg":"ES256"}', "alg"), ('{"alg":"ES256","alg":"ES256"}', "alg"),
        ('{"crit":["b64"],"alg":"ES256","crit":["b64"]}', "crit"),
        ('{"alg":"ES256","x":{"kid":"a","kid":"b"}}', "kid"),
    ],
)  # fmt: skip
def test_a_header_with_a_name_twice_is_refused_as_claims_are(
    engine: Engine, issue: Issue, now: datetime, header: str, name: str
) -> None:
    key = new_key()
    issued = issue(key)
    claims = json.dumps(asked(issued, now))
    doubled = claims.replace("{", '{"serial": "2a", ', 1)
    requests = {
        name: sealed_as_written(key, header, claims),
        "serial": sealed_as_written(key, '{"alg":"ES256"}', doubled),
    }
    for twice, request in requests.items():
        with refused("malformed-revocation-request") as refusal:
            prove(engine, now, request)
        assert f"{twice!r} stands twice" in str(refusal.value)
    assert events(engine, issued.serial) == []


def test_without_the_key_nothing_is_revoked_and_nothing_is_told(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    key, other = new_key(), new_key()
    issued = issue(key)
    revoked = replace(issued, serial=Serial(f"{5:040x}"))
    shared = OctKey.import_key(der.sequence() + issued.spki_sha256)
    unsigned = signed(key, **asked(issued, now)).rpartition(b".")[0] + b"."
    requests = {
        "another's key": signed(other, **asked(issued, now)),
        "an unknown serial": signed(key, **asked(revoked, now)),
        "another audience": signed(key, **asked(issued, now, aud="https://evil.example/v1/revocations")),
        "the public key as a secret": signed(shared, "HS256", **asked(issued, now)),
        "no signature": unsigned,
    }
    told = set()
    for request in requests.values():
        with refused("bad-proof-of-possession") as refusal:
            prove(engine, now, request)
        told.add(str(refusal.value))
    assert len(told) == 1
    assert events(engine, issued.serial) == []


@pytest.mark.parametrize("request_", [b"", b"no.jws", b"a.b.c.d", "é.é.é".encode(), b"x" * 9000], ids=str)
def test_what_is_no_request_is_refused_as_such(engine: Engine, now: datetime, request_: bytes) -> None:
    with refused("malformed-revocation-request"):
        prove(engine, now, request_)


WRONG: tuple[dict[str, Any], ...] = (
    {"serial": "zz"}, {"serial": 0}, {"serial": "0"}, {"reason": "unspecified"}, {"iat": "soon"},
    {"iat": 1e300}, {"iat": None}, {"comment": 3}, {"comment": "a\nb"}, {"more": 1}, {"serial": None},
)  # fmt: skip


def test_claims_that_do_not_fit_are_refused(engine: Engine, issue: Issue, now: datetime) -> None:
    key = new_key()
    issued = issue(key)
    for wrong in WRONG:
        with refused("malformed-revocation-request"):
            prove(engine, now, signed(key, **asked(issued, now, **wrong)))


@pytest.mark.parametrize("ahead", [0, 5])
def test_a_request_cannot_be_replayed_after_a_release(
    engine: Engine, issue: Issue, now: datetime, ahead: int
) -> None:
    key = new_key()
    issued = issue(key)
    caught = signed(key, **asked(issued, now + timedelta(minutes=ahead), reason="certificateHold"))
    prove(engine, now, caught)
    release(engine, now + timedelta(minutes=1), issued.serial)
    with refused("stale-request"):
        prove(engine, now + timedelta(minutes=2), caught)
    assert [event.action for event in events(engine, issued.serial)] == ["hold", "release"]


@pytest.mark.parametrize("minutes", [-6, 6])
def test_a_request_of_another_hour_is_refused(
    engine: Engine, issue: Issue, now: datetime, minutes: int
) -> None:
    key = new_key()
    request = signed(key, **asked(issue(key), now + timedelta(minutes=minutes)))
    with refused("stale-request"):
        prove(engine, now, request)


@pytest.mark.parametrize("reason", ["cACompromise", "privilegeWithdrawn"])
def test_a_holder_does_not_say_what_others_decide(
    engine: Engine, issue: Issue, now: datetime, reason: str
) -> None:
    key = new_key()
    with refused("reason-reserved"):
        prove(engine, now, signed(key, **asked(issue(key), now, reason=reason)))


@pytest.mark.behind_the_log
def test_a_lost_key_is_blocked_and_takes_its_other_certificate_along(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    key = new_key()
    issued = issue(key)
    other = twin(engine, issued)
    revoke(engine, now, issued.serial, LOST)
    ((action, reason, entry),) = events(engine, other)
    assert (action, reason) == ("revoke", "keyCompromise")
    assert entry is not None
    with engine.connect() as connection:
        query = "SELECT spki_sha256, cause FROM blocked_key"
        assert [tuple(row) for row in connection.execute(text(query))] == [
            (issued.spki_sha256, "reported-compromised")
        ]


@pytest.mark.behind_the_log
def test_another_reason_leaves_the_other_certificate_alone(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    issued = issue()
    other = twin(engine, issued)
    revoke(engine, now, issued.serial, RevocationReason.SUPERSEDED)
    assert events(engine, other) == []


@pytest.mark.behind_the_log
def test_who_lost_a_key_has_his_other_certificates_listed_until_they_are_settled(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    issued = issue()
    elsewhere = enrol(engine, now, seed_practitioner(engine, 2))
    theirs = issue(who=elsewhere)
    other = twin(engine, theirs)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE certificate DISABLE TRIGGER append_only"))
        move = (
            "UPDATE certificate SET practitioner = :whose, spki_sha256 = sha256('x') WHERE serial = :serial"
        )
        connection.execute(text(move), {"whose": issued.practitioner, "serial": other})
        connection.execute(text("ALTER TABLE certificate ENABLE TRIGGER append_only"))
    revoke(engine, now, issued.serial, LOST)
    listed = (
        "SELECT subject, detail ->> 'compromised' FROM attention WHERE resolved_at IS NULL AND kind = :kind"
    )
    asked_for = {"kind": "key-of-holder-compromised"}
    with engine.connect() as connection:
        assert [tuple(row) for row in connection.execute(text(listed), asked_for)] == [(other, issued.serial)]
    revoke(engine, now, other, RevocationReason.SUPERSEDED)
    with transaction(engine) as connection:
        assert suspension.end_holds(connection, now) == []
    with engine.connect() as connection:
        assert connection.execute(text(listed), asked_for).all() == []


@pytest.mark.behind_the_log
def test_a_corrected_reason_shows_everywhere_and_leaves_the_date(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    issued = issue()
    other = twin(engine, issued)
    revoke(engine, now, issued.serial, RevocationReason.SUPERSEDED)
    later = now + timedelta(days=3)
    restate(engine, later, issued.serial, LOST)
    first, second = events(engine, issued.serial)
    assert (first.reason, second.reason) == ("superseded", "keyCompromise")
    assert der.content(first.entry)[:24] == der.content(second.entry)[:24]
    with engine.connect() as connection:
        standing, _ = ocsp_store.standing(connection, issued.authority_id, issued.serial, "sha1")
        assert (standing.action, standing.reason, standing.revoked_at) == ("revoke", "keyCompromise", now)
        told = "SELECT detail FROM audit_pending WHERE event = 'certificate.reason-corrected'"
        assert connection.execute(text(told)).scalar_one() == {
            "from": "superseded", "to": "keyCompromise", "comment": "found online",
        }  # fmt: skip
        # One act, and one line, each: the log's own verification counts them.
        unequal = tlog_store.unequal_acts(connection)
        assert [kind for kind, serial, *_ in unequal if serial == issued.serial] == []
        assert (
            certificate_history.life(connection, issued.serial).state(now)
            is certificate_history.State.REVOKED
        )
    assert [event.reason for event in events(engine, other)] == ["keyCompromise"]


def test_what_may_not_be_corrected_is_refused(engine: Engine, issue: Issue, now: datetime) -> None:
    serial = issue().serial
    with refused("not-revoked"):
        restate(engine, now, serial, LOST)
    revoke(engine, now, serial, RevocationReason.SUPERSEDED)
    with refused("same-reason"):
        restate(engine, now, serial, RevocationReason.SUPERSEDED)
    with refused("already-revoked"):
        restate(engine, now, serial, HOLD)
    with refused("not-your-certificate"):
        restate(engine, now, serial, LOST, OPERATOR)
    restate(engine, now, serial, LOST)
    with refused("compromise-stays"):
        restate(engine, now, serial, RevocationReason.SUPERSEDED)


CHANGES = (
    "restates = NULL", "revoked_at = revoked_at - interval '1 day'", "reason = 'superseded'",
    "action = 'release', entry = NULL", "reason = 'certificateHold'", "shard = shard + 1",
)  # fmt: skip


def test_the_database_lets_a_correction_change_nothing_but_the_reason(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    revoke(engine, now, issue().serial, RevocationReason.SUPERSEDED)
    names = (
        "serial, authority_id, shard, action, reason, comment, actor, revoked_at, not_after, entry, restates,"
        " recorded_at"
    )
    add = f"INSERT INTO revocation ({names}) SELECT {names} FROM made"
    with engine.connect() as connection:
        for change in (*CHANGES, None):
            connection.execute(text("CREATE TEMP TABLE made ON COMMIT DROP AS SELECT * FROM revocation"))
            better = "UPDATE made SET reason = 'keyCompromise', restates = id"
            connection.execute(text(better))
            if change is None:
                assert connection.execute(text(add)).rowcount == 1
            else:
                connection.execute(text(f"UPDATE made SET {change}"))
                with pytest.raises(DBAPIError, match="revoked for good"), connection.begin_nested():
                    connection.execute(text(add))
            connection.rollback()


def test_a_hold_made_final_keeps_its_date(engine: Engine, issue: Issue, now: datetime) -> None:
    issued = issue()
    revoke(engine, now, issued.serial, HOLD)
    later = now + timedelta(days=2)
    done = revoke(engine, later, issued.serial, LOST)
    assert (done.revoked_at, done.recorded_at) == (now, later)
    with engine.connect() as connection:
        life = certificate_history.life(connection, issued.serial)
    assert life.state(now + timedelta(days=1)) is certificate_history.State.ON_HOLD
    assert life.state(later) is certificate_history.State.REVOKED


def test_a_hold_ends_after_fourteen_days_and_not_before(engine: Engine, issue: Issue, now: datetime) -> None:
    issued = issue()
    revoke(engine, now, issued.serial, HOLD)
    with transaction(engine) as connection:
        assert suspension.end_holds(connection, now + suspension.LASTS - timedelta(seconds=1)) == []
    with transaction(engine) as connection:
        (done,) = suspension.end_holds(connection, now + suspension.LASTS)
    assert (done.reason, done.revoked_at, done.actor) == (suspension.REASON, now, "job:holds-end")
    with refused("not-on-hold"):
        release(engine, now + suspension.LASTS, issued.serial)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM standing_hold")).scalar_one() == 0


def test_one_released_and_held_again_has_fourteen_days_more(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    serial = issue().serial
    revoke(engine, now, serial, HOLD)
    release(engine, now + timedelta(days=10), serial)
    with transaction(engine) as connection:
        assert suspension.end_holds(connection, now + timedelta(days=20)) == []
    revoke(engine, now + timedelta(days=20), serial, HOLD)
    with transaction(engine) as connection:
        assert suspension.end_holds(connection, now + timedelta(days=33)) == []


def test_what_a_measure_holds_is_for_the_measure_to_end(engine: Engine, issue: Issue, now: datetime) -> None:
    serial = issue().serial
    revoke(engine, now, serial, HOLD, rules.ACTOR)
    with transaction(engine) as connection:
        assert suspension.end_holds(connection, now + timedelta(days=400)) == []
    with refused("held-by-measure"), transaction(engine) as connection:
        releasing.release_as(connection, now=now, token=ADMIN, serial=serial)


def of_an_operator(engine: Engine, issued: IssuedCertificate) -> Token:
    """The token of the operator that this certificate belongs to from now on."""
    with engine.begin() as connection:
        operator = connection.execute(text("SELECT min(id) FROM operator")).scalar_one()
        connection.execute(
            text(
                "INSERT INTO operator_certificate (serial, operator_id, hosts, domains, spki_sha256)"
                " VALUES (:serial, :operator, '{}', '{}', :spki)"
            ),
            {"serial": issued.serial, "operator": operator, "spki": issued.spki_sha256},
        )
    return replace(OPERATOR, operator_id=operator)


def test_an_operator_takes_back_its_own_servers_certificates_only(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    issued = issue()
    own = of_an_operator(engine, issued)
    other = replace(OPERATOR, operator_id=(own.operator_id or 0) + 1)
    for token in (other, OPERATOR):
        with refused("not-your-certificate"):
            revoke_as(engine, now, token, issued.serial)
    with refused("reason-reserved"):
        revoke_as(engine, now, own, issued.serial, RevocationReason.PRIVILEGE_WITHDRAWN)
    assert revoke_as(engine, now, own, issued.serial).actor == own.actor.name


def test_an_operator_does_not_reword_what_was_decided_over_its_head(
    engine: Engine, issue: Issue, now: datetime
) -> None:
    issued = issue()
    own = of_an_operator(engine, issued)
    revoke_as(engine, now, ADMIN, issued.serial, RevocationReason.PRIVILEGE_WITHDRAWN)
    with refused("reason-reserved"):
        restate(engine, now, issued.serial, RevocationReason.SUPERSEDED, own)
