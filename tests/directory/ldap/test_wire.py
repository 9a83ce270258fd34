"""What we put together byte by byte is what ldap3 would have sent."""

from collections.abc import Sequence

import ldap3
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ldap3.operation.add import add_operation
from ldap3.operation.delete import delete_operation
from ldap3.operation.modify import modify_operation
from ldap3.protocol.rfc4511 import LDAPMessage, MessageID, ProtocolOp
from ldap3.utils.asn1 import encode
from pyasn1.codec.ber import decoder
from pyasn1.type.base import Asn1Item

from directory.ldap.plan import Add, Delete, Modify
from directory.ldap.wire import request

DN = "mail=a@one.example,ou=mailboxes,o=sceau,c=fr"
VALUES = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=3, unique=True)
ATTRIBUTES = st.dictionaries(st.sampled_from(["cn", "sn", "userCertificate;binary"]), VALUES, min_size=1)
NUMBERS = st.integers(min_value=1, max_value=2**31 - 1)


def of_ldap3(name: str, asked: Asn1Item, number: int) -> bytes:
    message = LDAPMessage()
    message["messageID"] = MessageID(number)
    message["protocolOp"] = ProtocolOp().setComponentByName(name, asked)
    made: bytes = encode(message)
    return made


@given(ATTRIBUTES, NUMBERS)
def test_an_addition(attributes: dict[str, Sequence[bytes]], number: int) -> None:
    ours = request(Add(DN, {name: tuple(values) for name, values in attributes.items()}), number)
    theirs = add_operation(DN, {name: list(values) for name, values in attributes.items()}, auto_encode=True)
    assert ours == of_ldap3("addRequest", theirs, number)


@given(ATTRIBUTES, ATTRIBUTES, NUMBERS)
def test_a_modification(gone: dict[str, list[bytes]], new: dict[str, list[bytes]], number: int) -> None:
    names = {**gone, **new}
    changes = {name: (tuple(gone.get(name, ())), tuple(new.get(name, ()))) for name in names}
    acts = (ldap3.MODIFY_DELETE, ldap3.MODIFY_ADD)
    theirs = {
        name: [(act, list(v)) for act, v in zip(acts, both, strict=True) if v]
        for name, both in changes.items()
    }
    made = of_ldap3("modifyRequest", modify_operation(DN, theirs, auto_encode=True), number)
    assert request(Modify(DN, changes), number) == made


@given(NUMBERS)
def test_a_deletion(number: int) -> None:
    assert request(Delete(DN), number) == of_ldap3("delRequest", delete_operation(DN), number)


@pytest.mark.parametrize("version", [0, 126, 127, 128, 2**63])
def test_a_fenced_deletion_carries_one_critical_assertion(version: int) -> None:
    message, rest = decoder.decode(request(Delete(DN, version), 7), asn1Spec=LDAPMessage())
    (control,) = message["controls"]
    assert (rest, str(control["controlType"]), bool(control["criticality"])) == (b"", "1.3.6.1.1.12", True)
    assert str(version + 1).encode() in bytes(control["controlValue"])
