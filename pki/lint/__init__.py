"""Checks of a certificate before any signature, one file per theme, each check with its citation.

A lint looks at the to-be-signed bytes as a certificate signed by a throw-away key; it knows no database. A
finding of ours stops the issuance: no certificate that breaks a rule is signed first and explained later.

Contract: Pure code knows no SQL, no network, no framework.
Contract: Inside pki: every wing has its floor.
"""
