"""Writes every revocation, suspension and release. Decides who may ask, and what falls with a compromised
key.

Contract: Inside pki: every wing has its floor.
"""
