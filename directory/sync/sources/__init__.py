"""Fetches bytes over a network; the only place of `directory` that does, but for LDAP."""
