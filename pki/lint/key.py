"""Keys that must not be certified: too small, easily broken, or from a generator known to be bad."""

from collections.abc import Iterable, Iterator
from math import gcd, isqrt, prod

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from directory.base.errors import Kind, Refusal
from pki.certificates.csr import public_key_of_request
from pki.certificates.public_keys import PublicKey
from pki.lint.lint import Case, Lint

CURVES = frozenset({"secp256r1", "secp384r1"})
SMALLEST_RSA = 3072
# Larger keys only make every verifier slower.
LARGEST_RSA = 8192
SMALLEST_EXPONENT = 1 << 16
LARGEST_EXPONENT = 1 << 256
# Primes generated side by side are found within a handful of steps; a hundred cost 50 microseconds.
FERMAT_ROUNDS = 100


def _primes_below(limit: int) -> list[int]:
    sieve = bytearray([1]) * limit
    for number in range(2, isqrt(limit) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit, number)))
    return [number for number in range(2, limit) if sieve[number]]


_SMALL_PRIMES = prod(_primes_below(752))
# Keys of the Infineon library are, modulo each of these primes, a power of 65537. Others are so modulo all of
# them once in 2^30 (Nemec et al., The Return of Coppersmith's Attack, CCS 2017).
_ROCA_PRIMES = (
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103,
    107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
)  # fmt: skip


def _powers(prime: int) -> frozenset[int]:
    powers, value = set(), 1
    while value not in powers:
        powers.add(value)
        value = value * 65537 % prime
    return frozenset(powers)


_ROCA = {prime: _powers(prime) for prime in _ROCA_PRIMES}


def weaknesses(key: object) -> list[str]:
    """The names of the key lints that this public key fails; [] for a key that may be certified."""
    return sorted({name for name, check in _CHECKS.items() for _ in check(key)})


def key_of_request(given: bytes) -> PublicKey:
    """The key that a request proves its sender to hold; refuses as `csr.read`, and `weak-key`."""
    key = public_key_of_request(given)
    if flaws := weaknesses(key):
        text = f"This key must not be certified: {', '.join(flaws)}."
        raise Refusal(Kind.UNACCEPTABLE, "weak-key", text, findings=flaws)
    return key


def _kind(key: object) -> Iterator[str]:
    if isinstance(key, EllipticCurvePublicKey):
        if key.curve.name not in CURVES:
            yield f"the curve {key.curve.name} is not P-256 or P-384"
    elif not isinstance(key, RSAPublicKey):
        yield f"{type(key).__name__} is not an RSA or EC key"


def _size(key: object) -> Iterator[str]:
    if isinstance(key, RSAPublicKey) and (
        not SMALLEST_RSA <= key.key_size <= LARGEST_RSA or key.key_size % 8 != 0
    ):
        yield f"an RSA modulus of {key.key_size} bits"


def _exponent(key: object) -> Iterator[str]:
    if isinstance(key, RSAPublicKey):
        exponent = key.public_numbers().e
        if exponent % 2 == 0 or not SMALLEST_EXPONENT < exponent < LARGEST_EXPONENT:
            yield "a public exponent that is even or outside 2^16+1 to 2^256-1"


def _small_factor(key: object) -> Iterator[str]:
    if isinstance(key, RSAPublicKey) and gcd(key.public_numbers().n, _SMALL_PRIMES) != 1:
        yield "a modulus with a factor below 752"


def _fermat(key: object) -> Iterator[str]:
    if not isinstance(key, RSAPublicKey):
        return
    modulus = key.public_numbers().n
    middle = isqrt(modulus - 1) + 1
    for step in range(FERMAT_ROUNDS):
        rest = (middle + step) ** 2 - modulus
        if isqrt(rest) ** 2 == rest:
            yield "a modulus of two primes that lie next to each other"
            return


def _roca(key: object) -> Iterator[str]:
    if isinstance(key, RSAPublicKey):
        modulus = key.public_numbers().n
        if all(modulus % prime in powers for prime, powers in _ROCA.items()):
            yield "a modulus with the fingerprint of the Infineon generator"


_CHECKS = {
    "key-kind": _kind,
    "rsa-size": _size,
    "rsa-exponent": _exponent,
    "rsa-small-factor": _small_factor,
    "rsa-close-primes": _fermat,
    "rsa-roca": _roca,
}
_CITATIONS = {
    "key-kind": "S/MIME BR 6.1.5 (P-256, P-384), this service's policy without P-521 and Edwards curves",
    "rsa-size": "ASVS 11.2.3 and ANSSI RGS B1 (3072 bits); S/MIME BR 6.1.5 (multiple of 8)",
    "rsa-exponent": "S/MIME BR 6.1.6 (e odd, 2^16+1 to 2^256-1)",
    "rsa-small-factor": "S/MIME BR 6.1.6 (no factor smaller than 752)",
    "rsa-close-primes": "S/MIME BR 4.9.1.1 and TLS BR 6.1.1.3 (Fermat, 100 rounds)",
    "rsa-roca": "TLS BR 6.1.1.3 (ROCA), CVE-2017-15361",
}


def _of_case(name: str) -> Lint:
    def check(case: Case) -> Iterable[str]:
        return _CHECKS[name](case.certificate.public_key())

    return Lint(name, _CITATIONS[name], check)


def _identifier_matches(case: Case) -> Iterator[str]:
    """Another CA's key in a leaf would let the leaf's holder be taken for it."""
    if case.issuer is not None and case.certificate.public_key() == case.issuer.public_key():
        yield "the key of its own issuer"


LINTS = (
    *(_of_case(name) for name in _CHECKS),
    Lint("key-not-issuers", "RFC 5280 6.1 (a path of distinct keys)", _identifier_matches),
)
