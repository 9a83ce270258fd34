"""HTTP-date, of which a reader may send any of three forms (RFC 9110 5.6.7): is it the one we sent?

Which dates count at all is for `api/status/reply.py` and `api/rest/preconditions.py`.
"""

import time
from email.utils import parsedate_to_datetime

# Not by strftime: HTTP speaks English whatever the locale.
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def is_same_date(sent: str | None, ours: str) -> bool:
    """Whether `sent` is the date `ours` (an IMF-fixdate), in that form, in RFC 850's, or in asctime's.

    Ours is written in each form, rather than theirs read: two digits of a year say no century.
    """
    if not sent or not ours:
        return False
    if sent == ours:
        return True
    instant = parsedate_to_datetime(ours)
    _, day, month, year, clock, zone = ours.split(" ")
    rfc_850 = f"{_DAYS[instant.weekday()]}, {day}-{month}-{year[-2:]} {clock} {zone}"
    return sent in (rfc_850, time.asctime(instant.timetuple()))
