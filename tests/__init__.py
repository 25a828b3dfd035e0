"""Tests: real servers, a fresh database each; the databases themselves are the oracle."""
