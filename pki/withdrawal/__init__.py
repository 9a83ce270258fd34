"""Derives revocations, suspensions and ended enrolments from the present state of the directory."""
