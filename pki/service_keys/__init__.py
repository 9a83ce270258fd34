"""Reads and uses the keys that are not CA keys: those for OCSP, lists and the log."""
