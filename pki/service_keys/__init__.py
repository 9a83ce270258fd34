"""Reads and uses the keys that are not CA keys: those for OCSP, lists and the log. It names the
CA that certifies them.

Contract: Inside pki: every wing has its floor.
"""
