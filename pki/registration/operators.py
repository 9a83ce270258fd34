"""Which operator a token acts for, and which hosts are within its domains."""

from collections.abc import Sequence

from sqlalchemy import Connection

from directory.access import Role, Token
from directory.base.errors import Kind, Refusal
from pki.registration import operators_store
from pki.registration.operators_store import Operator


def operator_of(connection: Connection, token: Token) -> Operator:
    """The operator that this token acts for; refuses `not-an-operator`."""
    operator = None
    if token.role is Role.OPERATOR and token.operator_id is not None:
        operator = operators_store.load(connection, token.operator_id)
    if operator is None:
        text = "This token acts for no operator: make one with `sceau token create --operator`."
        raise Refusal(Kind.FORBIDDEN, "not-an-operator", text)
    return operator


def domain_of(host: str, domains: Sequence[str]) -> str | None:
    """The longest of these domains that is the host or lies above it, None when none does."""
    above = [domain for domain in domains if host == domain or host.endswith(f".{domain}")]
    return max(above, key=len, default=None)


def check_domains(connection: Connection, operator: Operator, hosts: Sequence[str]) -> tuple[str, ...]:
    """The trusted domains these hosts lie in, each once; for a client, none.

    The longest trusted domain decides, whoever has it: who holds `b.example` has no say in `a.b.example` once
    that is another's.
    """
    if operator.suspended:
        raise Refusal(Kind.UNACCEPTABLE, "operator-suspended", f"{operator.name} is suspended.")
    if not operator.domains:
        text = f"{operator.name} has no domain on the trusted list."
        raise Refusal(Kind.UNACCEPTABLE, "domain-not-trusted", text)
    trusted = operators_store.trusted_above(connection, hosts)
    checked: dict[str, None] = {}
    for host in hosts:
        domain = domain_of(host, trusted)
        if domain is None:
            text = f"{host} lies in no trusted domain of this operator."
            raise Refusal(Kind.UNACCEPTABLE, "domain-not-trusted", text, host=host)
        if domain not in operator.domains:
            text = f"{host} lies in {domain}, which is not a domain of this operator."
            raise Refusal(Kind.UNACCEPTABLE, "domain-not-trusted", text, host=host)
        if operator.domains[domain]:
            text = f"The domain {domain} is suspended."
            raise Refusal(Kind.UNACCEPTABLE, "domain-suspended", text, host=host)
        checked[domain] = None
    return tuple(checked)
