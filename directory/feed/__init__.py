"""The order of changes: who has read how far, and what may be forgotten.

Contract: Inside directory: every wing has its floor.
"""
