"""Analytic cost models of the accelerators behind one interface."""
