"""Serial numbers: positive, short enough, long enough to be unguessable."""

from collections.abc import Iterator

from pki.lint.lint import Case, Lint

# 159 random bits begin with 39 zeros once in 2^39; one that does is more likely a broken generator.
FEWEST_BITS = 120


def _range(case: Case) -> Iterator[str]:
    if not 0 < case.certificate.serial_number < 1 << 159:
        yield "a serial number that is not positive or has more than 20 octets"


def _entropy(case: Case) -> Iterator[str]:
    if case.certificate.serial_number.bit_length() < FEWEST_BITS:
        yield f"a serial number of fewer than {FEWEST_BITS} bits"


LINTS = (
    Lint("serial-range", "RFC 5280 4.1.2.2 (positive, at most 20 octets)", _range),
    Lint("serial-entropy", "S/MIME BR 7.1 (64 bits of a CSPRNG); here 159", _entropy),
)
