"""Scheduled jobs, one subject a file. `table` says when each is due, `worker` runs them.

A job opens its transactions, lets `pki` or `directory` act, and counts.

Contract: Inside api: every wing has its floor.
"""
