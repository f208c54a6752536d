"""Vectors of the two AEADs, published ones and edges made here."""
