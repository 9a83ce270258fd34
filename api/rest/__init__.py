"""REST: one file per resource, its views beside the shapes they take and give. Decides nothing; opens the
transaction.

Contract: Front ends do not lean on one another.
"""
