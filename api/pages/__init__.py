"""Pages for people to read: the reference, the registers, what runs out.

Contract: Front ends do not lean on one another.
"""
