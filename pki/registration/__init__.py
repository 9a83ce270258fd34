"""Who may have a certificate: identification, enrolment by two persons, operators and their domains.

Contract: Inside pki: every wing has its floor.
"""
