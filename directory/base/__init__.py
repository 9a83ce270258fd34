"""What both record-keeping packages stand on: a closed list of five (clock, errors, db, audit, locks).

Nothing here knows what a practitioner or a certificate is.
"""
