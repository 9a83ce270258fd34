"""Derives revocations, suspensions and ended enrolments from the present state of the directory.

A person's measure is written here too, and followed at once by what it leads to.

Contract: Inside pki: every wing has its floor.
"""
