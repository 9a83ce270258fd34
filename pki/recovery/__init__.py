"""Brings a restored record forward to what was already signed or published. Signs nothing.

Contract: Inside pki: every wing has its floor.
"""
