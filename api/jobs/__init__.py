"""One scheduled job a file: opens the transaction, calls one function of `pki` or `directory`, counts."""
