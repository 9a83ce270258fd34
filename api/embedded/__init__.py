"""The PostgreSQL and the slapd that a first run and the tests bring along: real servers, private to a folder.

Production points at its own servers and never enters here.

Contract: Trial servers are started by the installation alone.
"""
