"""From when until when a certificate is valid, and which part of a CRL will ever hold it. Pure."""

from datetime import UTC, datetime, timedelta

from directory.base.errors import Kind, Refusal
from pki.certificates.profiles import BACKDATING, Profile
from pki.model import Authority, Serial


def shard_of(serial: Serial, shards: int) -> int:
    """Which part of the CA's CRL will ever hold this serial (fixed at issuance, or entries would wander)."""
    return int(serial, 16) % shards


def validity(profile: Profile, issuer: Authority | None, now: datetime) -> tuple[datetime, datetime]:
    """First and last second: as long as the profile allows, never outside the issuer's own.

    RFC 5280 4.1.2.5 counts both ends, so the last second of n days is one before n days later.
    """
    start = (now - BACKDATING).astimezone(UTC).replace(microsecond=0)
    if issuer is None:
        return start, start + profile.longest - timedelta(seconds=1)
    start = max(start, issuer.not_before)
    end = min(start + profile.longest - timedelta(seconds=1), issuer.not_after)
    if end <= now:
        text = f"The authority {issuer.id} ends at {issuer.not_after:%Y-%m-%d}: it issues nothing more."
        raise Refusal(Kind.UNAVAILABLE, "authority-expired", text)
    return start, end
