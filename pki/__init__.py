"""Who is trusted: certificates, revocations, their publication as CRL and OCSP, verdicts, and the audit log.

Imports `directory`, never `api`: it speaks neither HTTP nor the command line.

Contract: The data flows one way: api reads pki, pki reads directory.
Contract: Only api knows HTTP, commands and the scheduler.
"""
