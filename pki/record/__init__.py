"""SQL of certificates, reservations, enrolments, revocations and authorities. Takes no decision."""
