"""Certificates and calibrations: what is measured of methods on a model, at low priority."""
