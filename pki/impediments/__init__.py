"""What stands against a certificate, by the present record. Reads and refuses; writes nothing."""
