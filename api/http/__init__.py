"""What every HTTP front end shares: errors, paging, schemas, rate limit, idempotency, access log.

Contract: Inside api: every wing has its floor.
"""
