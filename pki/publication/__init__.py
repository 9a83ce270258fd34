"""Builds the files that others copy: exports and the trust list. Nothing in them is decided here.

Bytes that were signed are looked at once more before they are handed out.

Contract: Inside pki: every wing has its floor.
"""
