"""Tag, length, value (X.690 8.1): how DER and LDAP write one element.

What the tags mean is for `pki/certificates/der.py`, which also reads, and `directory/ldap/wire.py`.
"""

LONG_LENGTH = 0x80


def tlv(tag: int, *parts: bytes) -> bytes:
    """One element: tag, definite length in its shortest form, content."""
    content = b"".join(parts)
    size = len(content)
    if size < LONG_LENGTH:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, LONG_LENGTH | len(length))) + length + content
