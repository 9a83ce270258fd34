"""Media types that several resources speak, each written once (RFC 8259; NDJSON has no RFC)."""

JSON = "application/json"
NDJSON = "application/x-ndjson"
