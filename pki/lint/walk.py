"""pkilint's validators put together: a certificate is gone through once, each part asked what concerns it.

Bytes that come again from certificate to certificate are decoded once: an issuer's name, its addresses, what
a key may do. They are looked at once where a validator looks at nothing else.

What they ask is pkilint's matter; which sets of them are asked, `pkix`'s.

Loads pkilint, which takes a second: imported only where an opinion is wanted.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from inspect import signature
from typing import Any

from pkilint.document import NodeVisitor, ValueDecoder, create_and_append_node_from_pdu
from pkilint.pkix.extension import ExtensionCriticalityValidator
from pkilint.pkix.general_name import (
    DomainNameSyntaxValidator,
    MailboxAddressSyntaxValidator,
    UriSyntaxValidator,
)
from pkilint.validation import DecodingValidator, TypeMatchingValidator, ValidatorContainer
from pyasn1_alt_modules import rfc5280

# Certificates of one profile have a few hundred paths; those of a stranger must not fill the memory.
_MOST_REMEMBERED = 20_000
# Values are larger, and most of those that differ never come again.
_MOST_VALUES = 1_000
_USUAL = ("match", "validate", "validate_wrapper", "_validate_rec")
# What says of such a node which validators it concerns: the OID among its children.
_NAMED_BY = {rfc5280.Extension: "extnID", rfc5280.AttributeTypeAndValue: "type"}
# By path and text alone they say whether a name is well-formed.
_BY_VALUE = (UriSyntaxValidator, MailboxAddressSyntaxValidator, DomainNameSyntaxValidator)
_PLACE = ("path", "path_re", "pdu_class", "pdu_supertype", "predicate")


class Walk(ValidatorContainer):  # type: ignore[misc] # pkilint is untyped
    """A container that remembers which of its validators a node of that path, type and name concerns.

    The usual one asks each validator at each node: twelve thousand questions a certificate. Most of them are
    by path, type and OID alone, which for certificates of one profile are always the same.
    """

    def __init__(self, validators: Iterable[Any] = (), **place: Any) -> None:
        super().__init__(validators=list(validators), **place)
        # The class of what it was made from, where that has one of its own.
        self.made_from: type = ValidatorContainer
        self._remembered: dict[tuple[Any, ...], list[tuple[Any, bool]]] = {}

    def validate(self, node: Any) -> list[Any]:
        """What all of them find at this node and below."""
        results: list[Any] = []
        self._go_through(node, results)
        return results

    def _go_through(self, node: Any, results: list[Any]) -> None:
        pdu_type = type(node.pdu)
        # Said twice: a call at each node takes a twentieth of the walk.
        kind = _kind(node) if pdu_type in _NAMED_BY else (node.path, pdu_type)
        concerned = self._remembered.get(kind)
        for validator, is_undecided in self._concerned(node) if concerned is None else concerned:
            if is_undecided and not validator.match(node):
                continue
            result = validator.validate_wrapper(node)
            if isinstance(result, list):
                results += result
            else:
                results.append(result)
        # After the validators: decoding ones give a node its children.
        for child in node.children.values():
            self._go_through(child, results)

    def _concerned(self, node: Any) -> list[tuple[Any, bool]]:
        """The validators that its kind does not rule out, and whether one must be asked all the same."""
        if len(self._remembered) >= _MOST_REMEMBERED:
            self._remembered.clear()
        concerned = [
            (validator, _is_undecided(validator, node))
            for validator in self.validators
            if _may_match(validator, node)
        ]
        self._remembered[_kind(node)] = concerned
        return concerned


class Decoder(ValueDecoder):  # type: ignore[misc] # as above
    """A validator's `decode_func` that remembers what it decoded: no validator changes what it reads."""

    def __init__(self, like: ValueDecoder) -> None:
        super().__init__(
            type_path=like.type_path, value_path=like.value_path, type_mappings=like.type_mappings,
            default=like.default,
        )  # fmt: skip
        self._remembered: dict[tuple[bytes, int], Any] = {}

    def decode_value(self, node: Any, type_node: Any, value_node: Any, pdu_type: Any) -> Any:
        """The node of the value, new, and hung below `value_node` like any other."""
        if value_node.children:
            return super().decode_value(node, type_node, value_node, pdu_type)
        key = bytes(self.retrieve_substrate(value_node)), id(pdu_type)
        known = self._remembered.get(key)
        if known is not None:
            return create_and_append_node_from_pdu(value_node.document, known, value_node)
        made = super().decode_value(node, type_node, value_node, pdu_type)
        if len(self._remembered) >= _MOST_VALUES:
            self._remembered.clear()
        self._remembered[key] = made.pdu
        return made


class ByValue:
    """A validator's `validate_value` that remembers what it said of this text in this place."""

    def __init__(self, asked: Callable[[Any], Any]) -> None:
        self._asked = asked
        self._remembered: dict[tuple[str, str], Any] = {}

    def __call__(self, node: Any) -> Any:
        """What the validator says; what it raises is not kept."""
        key = node.path, str(node.pdu)
        known = self._remembered.get(key)
        if known is None:
            known = self._asked(node)
            if len(self._remembered) >= _MOST_VALUES:
                self._remembered.clear()
            self._remembered[key] = known
        return known


def merge(into: list[Any], validators: Iterable[Any]) -> Iterator[Any]:
    """Add what is not there yet, containers of one place to one another; gives the leaves added."""
    for validator in validators:
        if type(validator) is not ValidatorContainer:
            if not any(_is_same(validator, known) for known in into):
                made = walking(validator)
                into.append(made)
                yield made
            continue
        place = _place(validator)
        twin = next((c for c in into if isinstance(c, Walk) and _place(c) == place), None)
        if twin is None:
            twin = Walk(**place)
            into.append(twin)
        yield from merge(twin.validators, validator.validators)


def walking(validator: Any) -> Any:
    """A container, a decoder or a judge of names as one that remembers, and so all that it holds.

    Anything else as it is.
    """
    if isinstance(validator, _BY_VALUE):
        remembering = copy(validator)
        remembering.validate_value = ByValue(validator.validate_value)
        return remembering
    if isinstance(validator, DecodingValidator) and type(validator.decode_func) is ValueDecoder:
        remembering = copy(validator)
        remembering.decode_func = Decoder(validator.decode_func)
        return remembering
    if not isinstance(validator, ValidatorContainer) or not _goes_through_as_usual(validator):
        return validator
    made = Walk([walking(child) for child in validator.validators], **_place(validator))
    made.made_from = type(validator)
    return made


def _goes_through_as_usual(container: ValidatorContainer) -> bool:
    kind = type(container)
    return all(getattr(kind, name) is getattr(ValidatorContainer, name) for name in _USUAL)


def _place(visitor: Any) -> dict[str, Any]:
    """Which nodes it looks at: the arguments of every visitor of pkilint, which keeps them to itself."""
    return {name: getattr(visitor, f"_{name}") for name in _PLACE}


def _is_same(validator: Any, other: Any) -> bool:
    """Whether two validators ask the same: of one class, made of equal parts, or of none at all.

    In doubt they do not.
    """
    kind = type(validator)
    if kind is not getattr(other, "made_from", type(other)):
        return False
    return len(signature(kind).parameters) == 0 or bool(vars(validator) == vars(other))


def _kind(node: Any) -> tuple[Any, ...]:
    """What nodes share that the same validators concern."""
    pdu_type = type(node.pdu)
    named_by = _NAMED_BY.get(pdu_type)
    if named_by is None or named_by not in node.children:
        return node.path, pdu_type
    return node.path, pdu_type, node.children[named_by].pdu


def _may_match(validator: Any, node: Any) -> bool:
    """What `match` says by the kind of node alone; where more is asked, that only narrows it."""
    wanted = _place(validator)
    if wanted["path"] is not None and wanted["path"] != node.path:
        return False
    if wanted["path_re"] is not None and wanted["path_re"].match(node.path) is None:
        return False
    if wanted["pdu_class"] is not None and not isinstance(node.pdu, wanted["pdu_class"]):
        return False
    oid = _oid_asked_for(validator, node)
    return oid is None or bool(oid == _kind(node)[-1])


def _oid_asked_for(validator: Any, node: Any) -> Any:
    """The OID that a node of this kind must be named by, where the validator asks for one; None otherwise."""
    asks = type(validator).match
    named_by = _NAMED_BY.get(type(node.pdu))
    if named_by not in node.children:
        return None
    if asks is ExtensionCriticalityValidator.match and named_by == "extnID":
        return validator._type_oid  # noqa: SLF001 - it has no other name
    if asks is TypeMatchingValidator.match and validator.type_path == named_by:
        return validator.type_oid
    return None


def _is_undecided(validator: Any, node: Any) -> bool:
    """Whether more than its kind decides: the value, a predicate, or a `match` of the validator's own."""
    wanted = _place(validator)
    narrower = wanted["pdu_supertype"] is not None or wanted["predicate"] is not None
    usual = type(validator).match is NodeVisitor.match or _oid_asked_for(validator, node) is not None
    return narrower or not usual
