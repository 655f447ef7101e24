"""Adapters that go wrong in every way in which a system can, built on the one of the reference."""
