"""All lints, in the order they are reported."""

from pki.lint import extensions, key, names, serial, times

LINTS = (*serial.LINTS, *times.LINTS, *key.LINTS, *names.LINTS, *extensions.LINTS)
