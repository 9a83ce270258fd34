"""What the bytes of requests and certificates are: profiles, names, DER, path validation. Pure.

Contract: Pure code knows no SQL, no network, no framework.
Contract: Inside pki: every wing has its floor.
"""
