"""Between Granian and the applications: who may have how much of a process, and for how long.

Knows no resource and no rule; the purpose of a road is said where the road is made.

Contract: The front knows no resource and no rule.
Contract: Inside api: every wing has its floor.
"""
