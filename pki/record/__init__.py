"""SQL of certificates, reservations, enrolments, revocations and authorities. Takes no decision.

One table a file. Locks are taken in one order everywhere: the person, the key, then enrolment, then
reservation. So a departure, a revocation and an issuance can only queue.

Contract: Inside pki: every wing has its floor.
"""
