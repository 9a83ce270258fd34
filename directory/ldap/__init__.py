"""Entries out: what the record shows, written into LDAP by convergence. Certificates are bytes handed in.

`names`, `entry` and `plan` decide, `client` speaks LDAP, `wanted` reads the record, `publish` follows the
feed, `rebuild` starts over or compares everything.
"""
