"""Every setting, read from the environment in this file only, checked when built; nonsense refuses to start.

For each: its default, what losing it means, and what someone who can change it gains
(docs/reference/settings.md is checked against these fields).
"""

import os
import pwd
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from enum import Enum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import orjson

from directory.access import Allowance
from directory.base.durable_files import write_atomically
from directory.base.errors import Kind, Refusal
from directory.base.unix_sockets import socket_path
from directory.reading_quotas import Reading, ReadingQuotas
from directory.store import REGISTERS
from pki.issuance.quotas import Quotas
from pki.model import CrlForm, MailKeys
from pki.rollback.detection import OutsideMemory
from pki.signing import token_uri
from pki.signing.token_uri import TokenPlace

_PREFIX = "SCEAU_"
# Who connects to the record with a login of its own.
DATABASE_PARTS = ("web", "worker", "signer", "gate", "log")


def _setting(default: Any, doc: str) -> Any:
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True)
class Settings:
    """Where the parts of one installation are and the few numbers an operator may choose."""

    state: Path = _setting(  # noqa: RUF009 - makes a field, as dataclasses.field does
        Path("var"), "Folder of everything a first run makes. Lost: the embedded record is lost."
    )
    database_url: str = _setting(
        "", "PostgreSQL, `postgresql+psycopg://…`; empty: the embedded one below `state`."
    )
    web_database_url: str = _setting(
        "",
        "The same database, by the login of `sceau web`, a member of `sceau_web`; empty: `database_url`. Then"
        " a thief of the web process has the owner's rights.",
    )
    worker_database_url: str = _setting("", "The same for `sceau worker`, a member of `sceau_worker`.")
    signer_database_url: str = _setting("", "The same for `sceau signer`, a member of `sceau_signer`.")
    gate_database_url: str = _setting("", "The same for `sceau ldap-gate`, a member of `sceau_gate`.")
    log_database_url: str = _setting(
        "", "The same for who numbers the log (in the worker), a member of `sceau_log`."
    )
    ldap_url: str = _setting("", "Where the publisher writes; empty: the embedded slapd's `ldapi` socket.")
    ldap_keys: str = _setting(
        "",
        "Folder of `ca.pem`, `publisher.pem` and `publisher.key`, for an `ldaps://` server."
        " A thief of the key writes the directory.",
    )
    suffix: str = _setting("o=sceau,c=fr", "Base of the LDAP tree. Changing it needs `sceau ldap rebuild`.")
    host: str = _setting("127.0.0.1", "Address that web and LDAP listen on. Opening it exposes plain HTTP.")
    port: int = _setting(8080, "Port of REST, OCSP, CRL and CA files.")
    ldap_port: int = _setting(3389, "Port of open LDAP, where `ldap_open` says that there is such.")
    ldaps_port: int = _setting(3636, "Port of LDAPS, which takes tokens.")
    ldap_open: bool = _setting(
        default=False,
        doc="Whether LDAP answers without a name, in clear: one mailbox, by its exact address. On: who"
        " guesses addresses is not counted, and who asks for which one is seen on the line.",
    )
    ldap_client_authorities: str = _setting(
        "",
        "CAs (PEM) whose client certificates LDAPS takes (SASL EXTERNAL) from the operators that the trusted"
        " list names; empty: tokens alone. An intruder in it may search as any of them.",
    )
    ldap_gate_socket: str = _setting(
        "",
        "Where slapd asks about tokens (`sceau ldap-gate`), for accounts of its group too; empty: in"
        " `state/run`, for this account alone. A listener there learns tokens.",
    )
    public_url: str = _setting(
        "",
        "Base of all URLs; empty: `http://host:port`. Those inside certificates are http in any case. Fixed"
        " once issued.",
    )
    web_workers: int = _setting(2, "Granian worker processes.")
    drop_folder: str = _setting(
        "", "Where the nightly job looks for register files; empty: `state/registers`."
    )
    drop_accounts: str = _setting(
        "",
        "Accounts of this machine (names or numbers, with commas between). Their files in the drop folder are"
        " taken in, beside root's, our own and its owner's. A named account feeds the record.",
    )
    sources_file: str = _setting(
        "",
        "Where the nightly job fetches register files from (TOML, see registers.md); empty: nowhere."
        " A writer of it feeds the record.",
    )
    signer_keys: str = _setting(
        "file",
        "Where the CA keys are: `file`, encrypted below `state`; or on a token,"
        " `pkcs11:token=LABEL?module-path=/…` (RFC 7512). A change decides what the signer loads.",
    )
    ca_passphrase_file: str = _setting(
        "", "Passphrase of the CA keys, or the token's PIN. A thief of it and of the keys is the CA."
    )
    web_passphrase_file: str = _setting(
        "", "Passphrase of the OCSP and audit keys. A thief of both lies for 30 days."
    )
    anchors_file: str = _setting(
        "",
        "The anchors: installation, first administrators, recovery keys; empty: `state/anchors.json`."
        " Whoever can change it before the first start holds every power; later a change is noticed.",
    )
    crl_form: str = _setting(
        "plain",
        "Form of the CRLs of the CAs that a first run makes: `plain` (one list, for 100,000 at most), or"
        " `national` (in parts, with deltas). Those that exist keep theirs; a ceremony's file says its own.",
    )
    crl_hours: int = _setting(72, "Hours from thisUpdate to nextUpdate of a CRL (RFC 5280 5.1.2.5).")
    ocsp_hours: int = _setting(8, "Hours a pre-signed OCSP answer holds; shorter makes replays shorter.")
    ocsp_never_issued: str = _setting(
        "unknown",
        "The OCSP status of a serial never issued: `unknown`, or `revoked` (RFC 6960 2.2, extended)."
        " Clients that take `unknown` for good need the latter.",
    )
    mail_keys: str = _setting(
        "joined",
        "Whether a mailbox gets from now on one certificate for signature and encryption (`joined`) or one"
        " for each, on a key of its own (`separate`). Changed, programs that ask the other way are refused.",
    )
    trial_addresses: bool = _setting(
        default=False,
        doc="Whether a check answers the addresses below `reasons.test`, one for each verdict and reason"
        " (trial-addresses.md). They are nobody's and stand in no directory; the demo has them on.",
    )
    verdict_minutes: int = _setting(
        15, "Minutes a verdict may be kept by who asked. Longer delays revocations."
    )
    verdict_memory: int = _setting(
        448,
        "Megabytes in which a web process remembers mailboxes it was asked about, and their certificates; it"
        " looks in the record ten times a second whether they changed. Less asks for them again.",
    )
    freshness_hours: str = _setting(
        "48",
        "Hours from which a register counts as late: for all, then for some (`48, finess=4320`)."
        " Longer hides a night that failed.",
    )
    grace_struck_off_hours: int = _setting(
        0, "Hours between a strike-off and the revocation. Longer leaves a key good that must not be."
    )
    grace_departed_hours: int = _setting(
        0, "Hours between leaving the register and the revocation; the verdict refuses meanwhile."
    )
    grace_end_of_practice_hours: int = _setting(
        168, "Hours without an open practice before the revocation: between two posts nobody enrols anew."
    )
    grace_mailbox_closed_hours: int = _setting(
        0, "Hours between a mailbox leaving the national list and the revocation."
    )
    grace_mailbox_moved_hours: int = _setting(
        0, "Hours between a mailbox passing to another holder or establishment and the revocation."
    )
    grace_organisation_closed_hours: int = _setting(
        0, "Hours between an establishment closing or leaving FINESS and the revocation."
    )
    grace_renumbered_hours: int = _setting(
        720, "Hours a certificate under a replaced national number lives: time to get one under the new."
    )
    grace_domain_withdrawn_hours: int = _setting(
        24, "Hours an operator's certificate lives after its domain left it on the trusted list."
    )
    quota_token_hour: int = _setting(
        1000, "Certificates one registrar's token may have made in an hour. More lets a stolen one do more."
    )
    quota_token_day: int = _setting(2000, "The same in 24 hours.")
    quota_authority_hour: int = _setting(
        2000, "Certificates all tokens of one body may have made in an hour. More lets stolen ones do more."
    )
    quota_authority_day: int = _setting(10_000, "The same in 24 hours.")
    withdrawals_token_hour: int = _setting(
        60,
        "From how many one token may take trust within 60 minutes (measures, holds, revocations, bulks,"
        " corrections); beyond, a second person agrees. A higher one lets a stolen token do more.",
    )
    withdrawals_authority_hour: int = _setting(
        300,
        "The same for all tokens of one body together. A higher one lets stolen tokens do more; two"
        " low ones slow down a registrar who must act.",
    )
    reading_searches_hour: int = _setting(
        1000,
        "Pages of searches and lists that an operator may have within 60 minutes; one of several tokens of"
        " his half, a registrar's token a fifth. A higher one lets a stolen token copy the directory.",
    )
    reading_addresses_hour: int = _setting(
        200_000,
        "The same of checked addresses, alone or in bulk. More lets who guesses addresses find more; fewer"
        " keep an operator from writing.",
    )
    reading_numbers_hour: int = _setting(
        10_000, "The same of practitioners and organisations by number. More lets who counts up find more."
    )
    reading_feeds_hour: int = _setting(
        40_000, "The same of pages of the feed of changes. Fewer make copies late while much changes."
    )
    reading_downloads_hour: int = _setting(
        1000,
        "The same of answers about exports, and of results of checks answered later, parts of files included."
        " Fewer slow who begins a copy.",
    )
    reading_authority_times: int = _setting(
        20,
        "How many times as much as one of its registrars an authority may read; 0: authorities are not"
        " counted. More lets many stolen tokens read more; fewer let a few shut out their colleagues.",
    )
    reading_source_times: int = _setting(
        5,
        "How many times as much as an operator one source address may read; 0: sources are not counted."
        " Behind a proxy that is not trusted all have one address, and are refused together.",
    )
    feed_days: int = _setting(
        90, "Days a change is kept in the feed. Fewer make slow copies begin anew; each takes room."
    )
    exports_folder: str = _setting(
        "", "Folder of the exports, the same for worker and web; empty: `state/exports`."
    )
    checks_folder: str = _setting(
        "",
        "Folder of the checks that are answered later, the same for worker and web; empty: `state/checks`."
        " Who reads it learns whom operators write to; losing it fails the checks of a day.",
    )
    bounds_file: str = _setting(
        "",
        "Own bounds of the nightly run (TOML), over those shipped. A change decides what goes unseen.",
    )
    smtp_host: str = _setting(
        "", "Mail server that takes notices of expiry; empty: none are mailed, `/expiring` shows them alone."
    )
    smtp_port: int = _setting(25, "Its port.")
    smtp_from: str = _setting("", "Address that notices come from; needed with `smtp_host`.")
    smtp_starttls: bool = _setting(
        default=True, doc="Whether notices go under TLS, checked by name, or not at all. Off: in clear."
    )
    smtp_ca_file: str = _setting(
        "", "CAs (PEM) that the mail server is known by; empty: those of the system."
    )
    body_seconds: int = _setting(
        10,
        "Seconds in which a request's body must bring its least, or end. Longer lets slow ones hold places.",
    )
    body_rate: int = _setting(500, "Octets a second that a body must bring at least, over `body_seconds`.")
    trusted_proxies: str = _setting(
        "",
        "Addresses or networks of the proxies in front (`10.0.0.5, 2001:db8::/64`), which say for whom they"
        " ask. Empty: all behind a proxy share one share. A named proxy may take on any address.",
    )
    proxy_header: str = _setting(
        "forwarded",
        "Where those proxies say it: `forwarded` (RFC 7239) or `x-forwarded-for`. The other is not read: a"
        " client writes it himself.",
    )
    strict_rpps: bool = _setting(
        default=True, doc="Whether RPPS numbers must pass Luhn; official test data often do not."
    )

    def __post_init__(self) -> None:
        """Refuse what contradicts a standard or itself."""
        if not 24 < self.crl_hours <= 240:  # noqa: PLR2004 - BR 7.2: at most 10 days; above the daily fetch of readers
            raise Refusal(Kind.MALFORMED, "bad-setting", "crl_hours must lie between 25 and 240 hours.")
        if not 8 <= self.ocsp_hours <= 240:  # noqa: PLR2004 - both baseline requirements: 8 h to 10 d
            raise Refusal(Kind.MALFORMED, "bad-setting", "ocsp_hours must lie between 8 and 240 hours.")
        # gematik's longest client cache is 12 h.
        _within("verdict_minutes", self.verdict_minutes, 1, 720)
        _within("verdict_memory", self.verdict_memory, 1, 16_384)
        _one_of("ocsp_never_issued", self.ocsp_never_issued, {"unknown", "revoked"})
        _one_of("crl_form", self.crl_form, {form.value for form in CrlForm})
        _one_of("mail_keys", self.mail_keys, {rule.value for rule in MailKeys})
        for name in (f.name for f in fields(self) if f.name.startswith("grace_")):
            if not 0 <= getattr(self, name) <= 2160:  # noqa: PLR2004 - 90 days, as long as the feed is kept
                raise Refusal(Kind.MALFORMED, "bad-setting", f"{name} must lie between 0 and 2160 hours.")
        _quotas_of(self)
        _allowance_of(self)
        if not 1 <= self.body_seconds <= 120:  # noqa: PLR2004 - a person's patience
            raise Refusal(Kind.MALFORMED, "bad-setting", "body_seconds must lie between 1 and 120.")
        if not 0 <= self.body_rate <= 1_000_000:  # noqa: PLR2004 - above it no line of an office sends
            raise Refusal(Kind.MALFORMED, "bad-setting", "body_rate must lie between 0 and 1,000,000.")
        _one_of("proxy_header", self.proxy_header, {"forwarded", "x-forwarded-for"})
        _networks(self.trusted_proxies)
        _reading_quotas_of(self)
        _accounts(self.drop_accounts)
        if not 90 <= self.feed_days <= 3650:  # noqa: PLR2004 - promised to operators; ten years
            raise Refusal(Kind.MALFORMED, "bad-setting", "feed_days must lie between 90 and 3650.")
        if not re.fullmatch(
            r"(o|ou|dc|c|l|st)=[^,=+]+(,(o|ou|dc|c|l|st)=[^,=+]+)*", self.suffix, re.IGNORECASE
        ):
            raise Refusal(Kind.MALFORMED, "bad-setting", f"suffix is not a plain LDAP name: {self.suffix!r}.")
        _hours_by_register(self.freshness_hours)
        _token_of(self.signer_keys)
        self._refuse_ports()

    def _refuse_ports(self) -> None:
        if self.smtp_host and not re.fullmatch(r"[!-?A-~]+@[A-Za-z0-9.-]+", self.smtp_from):
            raise Refusal(
                Kind.MALFORMED, "bad-setting", "smtp_from must be an address when smtp_host is given."
            )
        for name in ("port", "ldap_port", "ldaps_port", "smtp_port"):
            if not 0 < getattr(self, name) < 65536:  # noqa: PLR2004 - TCP
                raise Refusal(Kind.MALFORMED, "bad-setting", f"{name} is not a TCP port.")

    @property
    def base_url(self) -> str:
        """What URLs inside certificates begin with."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def registers(self) -> Path:
        """The folder the nightly job reads."""
        return Path(self.drop_folder) if self.drop_folder else self.state / "registers"

    @property
    def droppers(self) -> frozenset[int]:
        """Numbers of the accounts whose files in the drop folder are taken in."""
        return _accounts(self.drop_accounts)

    @property
    def checks(self) -> Path:
        """The folder of checks that are answered later: what is asked, and the verdicts."""
        return Path(self.checks_folder) if self.checks_folder else self.state / "checks"

    @property
    def exports(self) -> Path:
        """The folder exports are written to and handed out from."""
        return Path(self.exports_folder) if self.exports_folder else self.state / "exports"

    @property
    def kept_files(self) -> Path:
        """Folder of the files of held runs, which wait there for named persons."""
        return self.state / "kept"

    @property
    def quotas(self) -> Quotas:
        """How many certificates a token and a body may have made."""
        return _quotas_of(self)

    @property
    def allowance(self) -> Allowance:
        """From how many a token and a body may take trust within an hour."""
        return _allowance_of(self)

    @property
    def proxies(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Addresses of the proxies that may say for whom they ask."""
        return _networks(self.trusted_proxies)

    @property
    def reading_quotas(self) -> ReadingQuotas:
        """How much may be read within an hour."""
        return _reading_quotas_of(self)

    @property
    def freshness(self) -> Mapping[str, timedelta]:
        """For each register the age from which it is late."""
        return _hours_by_register(self.freshness_hours)

    @property
    def ca_keys(self) -> Path:
        """Folder of the signer's journal, and of the CA keys if they are files; only the signer opens it."""
        return self.state / "ca"

    @property
    def token(self) -> TokenPlace | None:
        """The token that holds the CA keys, None when they are files."""
        return _token_of(self.signer_keys)

    @property
    def web_keys(self) -> Path:
        """Folder of the OCSP responders' keys, short-lived and renewed by the worker."""
        return self.state / "ocsp"

    @property
    def anchors(self) -> Path:
        """File of the anchors, from which every power is derived; an installation may have none."""
        return Path(self.anchors_file) if self.anchors_file else self.state / "anchors.json"

    @property
    def persons(self) -> Path:
        """Folder of the keys of a demo's persons."""
        return self.state / "persons"

    @property
    def audit_folder(self) -> Path:
        """Folder of the audit log's key and of the signed heads, outside the database they watch over."""
        return self.state / "audit"

    @property
    def crl_floor(self) -> Path:
        """File of the last CRL numbers and events, the last CRLs beside it: what a restored backup forgot."""
        return self.state / "floor" / "crl.json"

    @property
    def kept(self) -> OutsideMemory:
        """What a restored database is held against, outside it."""
        return OutsideMemory(self.crl_floor, self.audit_folder / "checkpoints")

    @property
    def signer_socket(self) -> Path:
        """Where the signer listens."""
        return self.state / "run" / "signer.sock"

    @property
    def ldap_gate(self) -> Path:
        """Where slapd asks about tokens."""
        beside = self.state / "run" / "ldap-gate"
        return Path(self.ldap_gate_socket) if self.ldap_gate_socket else socket_path(beside)

    @property
    def ca_passphrase(self) -> Path:
        """File holding the passphrase of the CA keys, or their token's PIN; only the signer opens it."""
        return (
            Path(self.ca_passphrase_file)
            if self.ca_passphrase_file
            else self.state / "secrets" / "ca.passphrase"
        )

    @property
    def is_elsewhere(self) -> bool:
        """Whether the record lies in another PostgreSQL than the embedded one."""
        return any((self.database_url, *(self.url_of(part) for part in DATABASE_PARTS)))

    def url_of(self, part: str) -> str:
        """The URL of one part's own login, '' where it has none."""
        return str(getattr(self, f"{part}_database_url")) if part else self.database_url

    @property
    def web_passphrase(self) -> Path:
        """File holding the passphrase of the OCSP responders' and the audit log's keys."""
        return (
            Path(self.web_passphrase_file)
            if self.web_passphrase_file
            else self.state / "secrets" / "web.passphrase"
        )


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise Refusal(Kind.MALFORMED, "bad-setting", f"{name} must lie between {least} and {most}.")


def _one_of(name: str, value: str, allowed: set[str]) -> None:
    if value not in allowed:
        raise Refusal(Kind.MALFORMED, "bad-setting", f"{name} must be {' or '.join(sorted(allowed))}.")


def _hours_by_register(words: str) -> Mapping[str, timedelta]:
    """`48` or `48, finess=4320` as a limit for each register; Refusal `bad-setting` for anything else."""
    general, *particular = (word.strip() for word in words.split(","))
    given = [("", general), *(tuple(word.split("=", 1)) for word in particular)]
    if not all(
        len(pair) == 2 and pair[0] in ("", *REGISTERS) and re.fullmatch("[1-9][0-9]{0,5}", pair[1])  # noqa: PLR2004 - a name and its value
        for pair in given
    ):
        text = f"freshness_hours: hours, then register=hours for some of {', '.join(REGISTERS)}: {words!r}."
        raise Refusal(Kind.MALFORMED, "bad-setting", text)
    hours = {name: timedelta(hours=int(value)) for name, value in given}
    return {register: hours.get(register, hours[""]) for register in REGISTERS}


def _accounts(words: str) -> frozenset[int]:
    try:
        return frozenset(
            int(word) if word.isdecimal() else pwd.getpwnam(word).pw_uid
            for word in map(str.strip, words.split(","))
            if word
        )
    except KeyError as error:
        text = f"drop_accounts: accounts of this machine, with commas between: {error.args[0]}."
        raise Refusal(Kind.MALFORMED, "bad-setting", text) from error


def _networks(words: str) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(word.strip()) for word in words.split(",") if word.strip())
    except ValueError as error:
        text = f"trusted_proxies: addresses or networks, with commas between: {error}."
        raise Refusal(Kind.MALFORMED, "bad-setting", text) from error


def _quotas_of(settings: Settings) -> Quotas:
    try:
        return Quotas(
            settings.quota_token_hour, settings.quota_token_day, settings.quota_authority_hour,
            settings.quota_authority_day,
        )  # fmt: skip
    except ValueError as error:
        raise Refusal(Kind.MALFORMED, "bad-setting", f"quota_…: {error}.") from error


def _allowance_of(settings: Settings) -> Allowance:
    try:
        return Allowance(settings.withdrawals_token_hour, settings.withdrawals_authority_hour)
    except ValueError as error:
        raise Refusal(Kind.MALFORMED, "bad-setting", f"withdrawals_…: {error}.") from error


def _reading_quotas_of(settings: Settings) -> ReadingQuotas:
    given = {reading.value: int(getattr(settings, f"reading_{reading.value}_hour")) for reading in Reading}
    try:
        return ReadingQuotas(
            **given,
            authority_times=settings.reading_authority_times,
            source_times=settings.reading_source_times,
        )
    except ValueError as error:
        raise Refusal(Kind.MALFORMED, "bad-setting", f"reading_…: {error}.") from error


def _token_of(words: str) -> TokenPlace | None:
    """None for `file`, the token that a URI means; Refusal `bad-setting` for anything else."""
    if words == "file":
        return None
    try:
        return token_uri.read(words)
    except ValueError as error:
        # Not repeated: who wrote a PIN into it should not find it in a log as well.
        text = f"signer_keys is neither `file` nor the URI of a token: {error}."
        raise Refusal(Kind.MALFORMED, "bad-setting", text) from error


def load_settings(state: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Defaults, then `settings.toml` in the state folder, then the environment (`SCEAU_PORT=…`)."""
    environment = os.environ if environment is None else environment
    folder = (state or Path(environment.get(_PREFIX + "STATE", "var"))).resolve()
    given: dict[str, Any] = {}
    if (folder / "settings.toml").exists():
        given |= tomllib.loads((folder / "settings.toml").read_text())
    for name in (f.name for f in fields(Settings)):
        if _PREFIX + name.upper() in environment:
            given[name] = environment[_PREFIX + name.upper()]
    return _checked(folder, given)


def _checked(folder: Path, given: Mapping[str, Any]) -> Settings:
    known = {f.name: f for f in fields(Settings)}
    if unknown := set(given) - set(known):
        raise Refusal(Kind.MALFORMED, "bad-setting", f"unknown settings: {', '.join(sorted(unknown))}.")
    typed = {name: _typed(name, type(known[name].default), value) for name, value in given.items()}
    return Settings(**{**typed, "state": folder})


def _typed(name: str, wanted: type, value: Any) -> Any:
    if isinstance(value, wanted) or wanted.__name__.endswith("Path"):
        return value
    try:
        if wanted is bool:
            return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        return wanted(value)
    except (ValueError, KeyError) as error:
        raise Refusal(
            Kind.MALFORMED, "bad-setting", f"{name}: {value!r} is not a {wanted.__name__}."
        ) from error


def settings_with(state: Path, given: Mapping[str, Any]) -> Settings:
    """The settings as they would be with `given` kept beside what is kept already; keeps nothing."""
    path = state / "settings.toml"
    kept: dict[str, Any] = tomllib.loads(path.read_text()) if path.exists() else {}
    return _checked(state, {**kept, **{name: value for name, value in given.items() if value is not None}})


class Secret(Enum):
    """The two passphrases: whose keys each opens. Each comes from the environment or from its file."""

    CA = "CA_PASSPHRASE"
    WEB = "WEB_PASSPHRASE"


def passphrase(settings: Settings, secret: Secret) -> bytes:
    """The passphrase or PIN: from `SCEAU_CA_PASSPHRASE` or `SCEAU_WEB_PASSPHRASE`, else from its file."""
    given = os.environ.get(_PREFIX + secret.value)
    if given:
        return given.encode()
    path = settings.ca_passphrase if secret is Secret.CA else settings.web_passphrase
    try:
        return path.read_bytes().strip()
    except OSError as error:
        meant = "PIN of the token" if secret is Secret.CA and settings.token else f"{secret.name} passphrase"
        text = f"The {meant} is neither in {_PREFIX}{secret.value} nor in its file."
        raise Refusal(Kind.UNAVAILABLE, "passphrase-missing", text) from error


def failpoint() -> str:
    """Where this process is to die, fail or wait (`directory/base/failpoints.py`); '' but in a test."""
    return os.environ.get(_PREFIX + "FAILPOINT", "")


def in_environment(secret: Secret) -> bool:
    """Whether this passphrase is handed in, so that no file of it need be made."""
    return bool(os.environ.get(_PREFIX + secret.value))


def child_environment(
    settings: Settings, secret: Secret | None = None, parts: tuple[str, ...] = DATABASE_PARTS
) -> dict[str, str]:
    """The environment of a part started as a process of its own: that one passphrase and no other.

    Of the logins to the record it has those of `parts` alone, where these have one; '' is the owner.
    """
    kept = {_PREFIX + setting.value for setting in Secret if setting is not secret}
    kept |= {f"{_PREFIX}{part.upper()}_DATABASE_URL" for part in DATABASE_PARTS if part not in parts}
    if "" not in parts and all(settings.url_of(part) for part in parts):
        kept.add(_PREFIX + "DATABASE_URL")
    ours = {name: value for name, value in os.environ.items() if name not in kept}
    return {**ours, _PREFIX + "STATE": str(settings.state), "PYTHONUNBUFFERED": "1"}


def save_settings(state: Path, given: Mapping[str, Any]) -> None:
    """Keep what `sceau up` was told: every later command on this state folder finds the same parts.

    Nonsense is refused before it is kept; the file is its owner's alone: it may hold a database's password.
    """
    path = state / "settings.toml"
    kept: dict[str, Any] = tomllib.loads(path.read_text()) if path.exists() else {}
    kept |= {name: value for name, value in given.items() if value is not None}
    settings_with(state, kept)
    lines = [f"{name} = {orjson.dumps(value).decode()}\n" for name, value in sorted(kept.items())]
    write_atomically(path, "".join(lines).encode())
