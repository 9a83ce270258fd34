"""Answers about one certificate; `good` only for what is in the record.

Contract: Inside pki: every wing has its floor.
"""
