"""The `sceau` command: one file per subject.

Exit 0: done, or yes; 1: refused, or no; 2: misused, or out of reach. Carries arguments in and words out;
`directory`, `pki` and `api`'s own programs act.

Contract: Front ends do not lean on one another.
Contract: Commands and status know nothing that REST is built on.
"""
