"""Serial numbers as people write them. Pure."""

import re

from directory.base.errors import Kind, Refusal
from pki.model import Serial, serial_of

_SERIAL = re.compile(r"(0x)?[0-9a-fA-F]{1,40}")


def parse_serial(text: str) -> Serial:
    """A serial as people write it (upper case, colons, `0x`) in its one form; refuses `malformed-serial`."""
    written = text.strip().replace(":", "")
    if not _SERIAL.fullmatch(written):
        raise Refusal(Kind.MALFORMED, "malformed-serial", "A serial number has 1 to 40 hexadecimal digits.")
    try:
        return serial_of(int(written, 16))
    except ValueError as error:
        text = "A serial number is above zero and below 2^159: no certificate has this one."
        raise Refusal(Kind.MALFORMED, "malformed-serial", text) from error
