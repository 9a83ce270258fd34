"""The only road to a certificate that is no CA's: check, reserve the serial, lint, commit, sign, store.

Contract: Inside pki: every wing has its floor.
"""
