"""Who is calling: turns what a request carries into a `Token` and its role, or refuses. Knows no resource.

Contract: Inside api: every wing has its floor.
"""
