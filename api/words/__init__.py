"""French and English sentences shown to people, and nothing else.

Contract: Words decide nothing.
Contract: Inside api: every wing has its floor.
"""
