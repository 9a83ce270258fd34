"""Validity: no longer than the profile, inside the issuer's, in whole seconds of UTC."""

from collections.abc import Iterator
from datetime import timedelta

from pki.lint.lint import Case, Lint

_SECOND = timedelta(seconds=1)


def _length(case: Case) -> Iterator[str]:
    # Both ends count (RFC 5280 4.1.2.5).
    span = case.certificate.not_valid_after_utc - case.certificate.not_valid_before_utc + _SECOND
    if not _SECOND < span <= case.profile.longest:
        yield f"a validity of {span} where {case.profile.longest.days} days are allowed"


def _inside_issuer(case: Case) -> Iterator[str]:
    if case.issuer is None:
        return
    if case.certificate.not_valid_before_utc < case.issuer.not_valid_before_utc:
        yield "it begins before its issuer does"
    if case.certificate.not_valid_after_utc > case.issuer.not_valid_after_utc:
        yield "it outlives its issuer"


LINTS = (
    Lint("validity-length", "S/MIME BR 6.3.2, TLS BR 6.3.2, and the profile's own figure", _length),
    Lint("validity-inside-issuer", "RFC 5280 6.1.3 (every certificate of the path is valid)", _inside_issuer),
)
