"""The contract between the stages: fields, raw logs, hashing, id tables, samples, logs, predictions, metrics.

Imports the standard library only; what needs a library imports it inside the function.
"""
