"""Answers what slapd asks about each reader: one protocol, slapd-sock(5). Decides no right of its own.

Contract: Inside api: every wing has its floor.
"""
