"""The ceremony where the record is: what the file asks for and the record lacks is signed, then stored.

Keys work while no transaction is open; all rows and the audit lines commit together, and no certificate
leaves before. What must be signed on the offline machine comes out as requests (`offline`, `intake`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, generate_private_key
from sqlalchemy import Connection, Engine

from directory.base.audit import Actor, Event, record
from directory.base.db import transaction
from directory.base.errors import Kind, Refusal
from directory.base.locks import try_lock
from pki.ceremony import build, signing, transcript
from pki.ceremony import store as ceremony_store
from pki.ceremony.build import Parent
from pki.ceremony.describe import describe
from pki.ceremony.plan import Place, Plan, Planned, PlannedAuthority, PlannedCross, read
from pki.ceremony.signing import KeyRing
from pki.ceremony.store import Cross
from pki.ceremony.transcript import Step
from pki.certificates.builder import CURVES, subject_of, subject_text
from pki.certificates.profiles import MOST_IN_PLAIN, OF_SERVERS_CAS, SERVERS_ROLE
from pki.certificates.public_keys import spki_sha256
from pki.model import Authority, AuthorityState, CrlForm, IssuedCertificate, serial_of
from pki.record import authorities as authority_rows
from pki.signing.keys import Keys

SHIPPED = {
    CrlForm.PLAIN: Path(__file__).with_name("shipped.toml"),
    CrlForm.NATIONAL: Path(__file__).with_name("national.toml"),
}
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Outcome:
    """What came of a ceremony: ids made and kept, requests in PEM by the CA they are for, the transcript.

    `transcript` is '' when nothing was made; `waiting` names what the offline machine has still to sign.
    """

    made: tuple[str, ...]
    kept: tuple[str, ...]
    waiting: tuple[str, ...]
    requests: Mapping[str, bytes]
    transcript: str


@dataclass
class _Course:
    """A ceremony under way: what is known by now, and what has been done."""

    certificates: dict[str, x509.Certificate]
    steps: list[Step] = field(default_factory=list)
    used: dict[str, EllipticCurvePrivateKey] = field(default_factory=dict)
    made: dict[str, bytes] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    requests: dict[str, bytes] = field(default_factory=dict)


def establish(
    engine: Engine, keys: Keys, *, base_url: str, now: datetime, actor: Actor, crl_form: CrlForm
) -> None:
    """Make the hierarchy of a first run where it is absent, every key in `keys`."""
    plan = read(SHIPPED[crl_form].read_bytes(), base_url)
    # What exists keeps its URLs, wherever this installation may have moved since, and the form of its CRLs.
    perform(engine, plan, KeyRing({Place.FILE: keys}), now=now, actor=actor, reviewed=False)


def perform(
    engine: Engine, plan: Plan, ring: KeyRing, *, now: datetime, actor: Actor, reviewed: bool = True
) -> Outcome:
    """Make what the plan names and the record lacks; gives what was done. In transactions of its own.

    Refuses `ceremony-running`, `ceremony-differs` where the record says otherwise than the file, and with the
    refusals of `build` and `signing`. Refuses `plain-too-large`, where the CA before lists more than the
    plain form carries. One cut short is taken up again with the same keys. Where the file was not `reviewed`,
    what exists may have other URLs and CRLs than it says.
    """
    with try_lock(engine, "ceremony") as alone:
        if not alone:
            raise Refusal(Kind.CONFLICT, "ceremony-running", "Another ceremony is under way on this record.")
        with transaction(engine, read_only=True) as connection:
            course = _begin(connection, plan, reviewed=reviewed)
        for planned in plan.in_order:
            if planned.id not in course.certificates:
                _step(plan, planned, ring, course, now)
        told = transcript.write(plan, course.steps, course.used, now) if course.used else ""
        if told:
            with transaction(engine) as connection:
                _store(connection, plan, course, told, now=now, actor=actor)
    return Outcome(tuple(course.made), tuple(course.kept), tuple(course.waiting), dict(course.requests), told)


def preview(connection: Connection, plan: Plan, now: datetime) -> str:
    """Everything that `perform` would have signed at this instant, in words; no key is looked at."""
    course = _begin(connection, plan)
    told = [f"{name}: exists and is kept" for name in course.kept]
    for planned in plan.in_order:
        if planned.id in course.certificates:
            continue
        certifies = plan.authority(planned.subject) if isinstance(planned, PlannedCross) else planned
        parent = _parent(planned, course)
        key = course.certificates.get(certifies.id)
        public = (
            generate_private_key(CURVES[certifies.curve]).public_key() if key is None else build.ec_key(key)
        )
        drawn = build.draw(
            plan, planned, public, parent,
            serial=serial_of(x509.random_serial_number()), validity=build.span(planned, parent, now),
        )  # fmt: skip
        build.check(planned, drawn, parent)
        course.certificates[planned.id] = drawn
        told.append(describe(f"{planned.id}, {_signer(plan, planned)}", drawn, drawn=True) + _crl(planned))
    return "\n\n".join(told) + "\n"


def _rows_of(
    planned: Planned, der: bytes, state: AuthorityState, now: datetime
) -> tuple[Authority | Cross, IssuedCertificate]:
    """The rows of a certificate that the plan asks for."""
    certificate = x509.load_der_x509_certificate(der)
    serial = serial_of(certificate.serial_number)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    issued = IssuedCertificate(
        serial=serial, authority_id=planned.issuer or planned.id, profile=planned.profile.name, shard=0,
        mailbox=None, practitioner=None, subject=subject_text(certificate.subject),
        spki_sha256=spki_sha256(build.ec_key(certificate)), der=der, sha256=sha256(der).digest(),
        not_before=begins, not_after=ends, issued_at=now,
    )  # fmt: skip
    if isinstance(planned, PlannedCross):
        return Cross(planned.id, serial, planned.subject, planned.issuer, der, begins, ends), issued
    made = Authority(
        id=planned.id, kind="root" if planned.issuer is None else "issuing", issuer_id=planned.issuer,
        subject=issued.subject, key_name=planned.key.name, shards=planned.shards, der=der, not_before=begins,
        not_after=ends, role=planned.role, generation=planned.generation, state=state,
        offline=planned.offline, crl_form=planned.crl_form,
    )  # fmt: skip
    return made, issued


def add(connection: Connection, planned: Planned, der: bytes, *, now: datetime, actor: Actor) -> None:
    """Store one signed certificate with its audit lines; a later generation stands by until activated."""
    made, issued = _rows_of(planned, der, _first_state(connection, planned), now)
    tbs = x509.load_der_x509_certificate(der).tbs_certificate_bytes
    if isinstance(made, Authority):
        authority_rows.add_authority(connection, made, now)
    ceremony_store.add_certificate(connection, issued, tbs, actor.name)
    if isinstance(made, Cross):
        ceremony_store.add_cross(connection, made, now)
    event = Event.AUTHORITY_CREATED if isinstance(made, Authority) else Event.AUTHORITY_CROSSED
    detail = {
        "sha256": issued.sha256.hex(), "serial": issued.serial, "not_after": issued.not_after.isoformat(),
    }  # fmt: skip
    told = detail | ({"crl": made.crl_form.value} if isinstance(made, Authority) else {})
    record(connection, now=now, actor=actor, event=event, subject=planned.id, detail=told)
    # A CA's certificate is a certificate: the log tells of each, or an unexplained one could hide among them.
    record(
        connection, now=now, actor=actor, event=Event.CERTIFICATE_ISSUED, subject=issued.serial, detail=detail
    )


def differences(
    plan: Plan, planned: Planned, certificate: x509.Certificate, *, compare_urls: bool
) -> list[str]:
    """In what this certificate is not what the plan asks for: [] when it is."""
    certifies = plan.authority(planned.subject) if isinstance(planned, PlannedCross) else planned
    span = certificate.not_valid_after_utc - certificate.not_valid_before_utc + _SECOND
    differing = []
    if certificate.subject.public_bytes() != subject_of(certifies.names).public_bytes():
        differing.append("subject")
    if build.ec_key(certificate).curve.name != certifies.curve:
        differing.append("curve")
    if span != timedelta(days=planned.days):
        differing.append("days")
    if (
        compare_urls
        and planned.issuer is not None
        and _crl_url(certificate) != plan.urls.crl(planned.issuer, 0)
    ):
        differing.append("base_url")
    return differing


def _begin(connection: Connection, plan: Plan, *, reviewed: bool = True) -> _Course:
    """What exists, once it is known to equal the plan; refuses `ceremony-differs`, `plain-too-large`."""
    authorities = {authority.id: authority for authority in authority_rows.authorities(connection)}
    crosses = {cross.id: cross for cross in ceremony_store.crosses(connection)}
    certificates = {
        name: x509.load_der_x509_certificate(certified.der)
        for name, certified in (authorities | crosses).items()
    }
    course = _Course(certificates)
    for planned in plan.in_order:
        if planned.id not in certificates:
            _check_carried(connection, planned)
            continue
        wrong = differences(plan, planned, certificates[planned.id], compare_urls=reviewed)
        if isinstance(planned, PlannedAuthority):
            wrong += _row_differences(planned, authorities[planned.id], reviewed=reviewed)
        if wrong:
            text = f"{planned.id} exists, and the file says otherwise of its {', '.join(wrong)}."
            raise Refusal(Kind.CONFLICT, "ceremony-differs", text, differs=wrong)
        course.kept.append(planned.id)
    return course


def _check_carried(connection: Connection, planned: Planned) -> None:
    """A plain CRL is for what its readers can carry: whoever has outgrown it is not made in it again."""
    if (
        not isinstance(planned, PlannedAuthority)
        or planned.issuer is None
        or planned.crl_form is not CrlForm.PLAIN
    ):
        return
    listed = ceremony_store.listed_by_role(connection, planned.role)
    if listed > MOST_IN_PLAIN:
        text = (
            f"{planned.id} cannot be plain: the CA before it lists {listed} certificates, and a plain CRL"
            f' is made for {MOST_IN_PLAIN}. Write `crl = "national"` and a number of `shards`.'
        )
        raise Refusal(Kind.UNACCEPTABLE, "plain-too-large", text)


def _row_differences(planned: PlannedAuthority, known: Authority, *, reviewed: bool) -> list[str]:
    pairs: dict[str, tuple[object, object]] = {
        "issuer": (planned.issuer, known.issuer_id),
        "key": (planned.key.name, known.key_name),
        "place": (planned.offline, known.offline),
    }
    if reviewed:
        pairs |= {"crl": (planned.crl_form, known.crl_form), "shards": (planned.shards, known.shards)}
    return [name for name, (wanted, present) in pairs.items() if wanted != present]


def _step(plan: Plan, planned: Planned, ring: KeyRing, course: _Course, now: datetime) -> None:
    issuer = None if planned.issuer is None else plan.authority(planned.issuer)
    if isinstance(planned, PlannedCross):
        certified = course.certificates.get(planned.subject)
        public = None if certified is None else build.ec_key(certified)
    elif planned.offline:
        public = None
    else:
        key, new = ring.key(planned)
        course.steps.append(Step(f"{planned.id}: {'made' if new else 'found'} the key {planned.key.name}"))
        if new or issuer is None:
            course.used[planned.id] = key
        public = key.public_key()
    here = issuer is None or (ring.reaches(issuer) and issuer.id in course.certificates)
    if public is None or not here:
        _wait(planned, ring, course)
        return
    signer = planned if issuer is None else issuer
    signing_key = ring.held(signer)  # type: ignore[arg-type]  # a cross certificate has an issuer
    der = signing.sign(
        plan, planned, public=public, signing=signing_key, parent=_parent(planned, course), now=now
    )
    course.used[signer.id] = signing_key
    course.certificates[planned.id] = x509.load_der_x509_certificate(der)
    course.made[planned.id] = der
    course.steps.append(Step(f"{planned.id}: signed, {_signer(plan, planned)}{_crl(planned)}", der))


def _wait(planned: Planned, ring: KeyRing, course: _Course) -> None:
    course.waiting.append(planned.id)
    says = f"{planned.id}: waits for the offline machine"
    if isinstance(planned, PlannedAuthority) and not planned.offline:
        made = signing.request(planned, ring.held(planned))
        course.requests[planned.id] = made
        says += f"; SHA-256 of its request: {sha256(made).hexdigest()}"
    course.steps.append(Step(says))


def _store(
    connection: Connection, plan: Plan, course: _Course, told: str, *, now: datetime, actor: Actor
) -> None:
    for planned in plan.in_order:
        if planned.id in course.made:
            add(connection, planned, course.made[planned.id], now=now, actor=actor)
    detail = {
        "title": plan.title, "present": list(plan.present), "made": list(course.made),
        "waiting": list(course.waiting), "transcript_sha256": sha256(told.encode()).hexdigest(),
    }  # fmt: skip
    record(
        connection, now=now, actor=actor, event=Event.CEREMONY_HELD, subject=plan.sha256.hex(), detail=detail
    )


def _first_state(connection: Connection, planned: Planned) -> AuthorityState:
    """The first of its role issues at once; whoever follows waits until its lists are out (`rollover`).

    The first for servers follows too where another CA has certified some:
    `pki.service_keys.servers_authority`.
    """
    if isinstance(planned, PlannedCross) or planned.issuer is None:
        return AuthorityState.ACTIVE
    follows = any(other.role == planned.role for other in authority_rows.authorities(connection))
    if planned.role == SERVERS_ROLE:
        follows = follows or ceremony_store.has_certified(connection, OF_SERVERS_CAS)
    return AuthorityState.STANDBY if follows else AuthorityState.ACTIVE


def _parent(planned: Planned, course: _Course) -> Parent | None:
    return None if planned.issuer is None else Parent(planned.issuer, course.certificates[planned.issuer])


def _signer(plan: Plan, planned: Planned) -> str:
    if planned.issuer is None:
        return f"by its own key ({plan.authority(planned.id).key.place.value})"
    return f"by {planned.issuer} ({plan.authority(planned.issuer).key.place.value})"


def _crl(planned: Planned) -> str:
    """What no certificate says of the CA, and what stays for its life."""
    if isinstance(planned, PlannedCross):
        return ""
    shards = f", {planned.shards} shards" if planned.crl_form is CrlForm.NATIONAL else ""
    return f"\n    Its CRL: {planned.crl_form.value}{shards}"


def _crl_url(certificate: x509.Certificate) -> str:
    points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    return "".join(str(name.value) for name in points[0].full_name or ())
