"""Reports how things stand: expiry, metrics, a relying party's view, private data that showed.

Writes notices and matters for people to look at; it gives and takes no trust.

Contract: Inside pki: every wing has its floor.
"""
