"""Nothing published may be newer than the record: keeps high-water marks outside it, and compares."""
