"""What both record-keeping packages stand on: database, locks, clock, errors, audit lines, durable files.

Nothing here knows what a practitioner or a certificate is.

Contract: Inside directory: every wing has its floor.
"""
