"""Revocation status over HTTP: OCSP, CRLs and CA certificates, answered before any framework is reached.

Carries bytes; `pki` decides their content. Asks nobody who they are: status is public.

Contract: Status reaches no framework.
Contract: Front ends do not lean on one another.
"""
