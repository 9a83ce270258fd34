"""Who is trusted: certificates, revocations, their publication as CRL and OCSP, verdicts, and the audit log.

Imports `directory`, never `api`: it speaks neither HTTP nor the command line.
"""
