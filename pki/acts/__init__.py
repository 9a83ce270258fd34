"""The canonical text of an act, and whether its signature holds. Pure.

Who may sign which act is for `powers`: here every credential is a public key.

Contract: Pure code knows no SQL, no network, no framework.
Contract: Inside pki: every wing has its floor.
"""
