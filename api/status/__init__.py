"""Revocation status over HTTP: OCSP, CRLs and CA certificates, answered before any framework is reached.

Carries bytes; what they say is decided in `pki`. Asks nobody who they are: status is public.

Contract: Status reaches no framework.
Contract: Front ends do not lean on one another.
"""
