"""Nothing published may be newer than the record: keeps high-water marks outside it, and compares.

The last instant signed on a host is one of them.

Contract: Inside pki: every wing has its floor.
"""
