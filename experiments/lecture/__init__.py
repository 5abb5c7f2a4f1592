"""The lecture's claims, one short file each: run it, see the number, the expectation, a verdict."""
