"""Whether the service is well: liveness, readiness, status and metrics."""
