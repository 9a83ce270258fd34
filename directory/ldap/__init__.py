"""Entries out: what the record shows, written into LDAP by convergence. Certificates are bytes handed in.

`names`, `entry` and `plan` decide, `client` speaks LDAP, whose writes `wire` puts into bytes. `wanted` reads
the record, `publish` follows the feed, `rebuild` starts over, `reconcile` compares everything.

Contract: One door to LDAP.
"""
