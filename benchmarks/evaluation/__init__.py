"""Predictions to metrics, beside scikit-learn on one machine."""
