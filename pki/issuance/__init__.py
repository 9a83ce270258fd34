"""The only road to a certificate: check, reserve the serial, lint, commit, sign, store."""
