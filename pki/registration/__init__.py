"""Who may have a certificate: identification, enrolment by two persons, operators and their domains."""
