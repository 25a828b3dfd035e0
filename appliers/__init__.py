"""Appliers write customer deltas to target databases. They own the contract and know no source."""
