"""Answers one question from facts: may these two exchange, and with which certificate?

Contract: Inside pki: every wing has its floor.
"""
