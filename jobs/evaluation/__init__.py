"""Predictions against labels: reading, AUC, the figures of a task."""
