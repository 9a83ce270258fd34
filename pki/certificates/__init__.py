"""What the bytes of requests and certificates are: profiles, names, DER, path validation. Pure."""
