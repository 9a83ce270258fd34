"""What stands against a certificate, by the present record. Reads and refuses; writes nothing.

Issuance, revocation and withdrawal ask it; it stands below all three.

Contract: Inside pki: every wing has its floor.
"""
