"""Whether the service is well: liveness, readiness, status and metrics.

Contract: Front ends do not lean on one another.
"""
