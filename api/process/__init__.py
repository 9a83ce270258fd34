"""What one process keeps in memory of its own state; `api/wiring.py` makes one of each.

Contract: Inside api: every wing has its floor.
"""
