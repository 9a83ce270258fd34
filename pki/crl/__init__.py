"""Builds, checks and stores one CRL per CA and shard.

Contract: Inside pki: every wing has its floor.
"""
