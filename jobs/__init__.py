"""The stages around training: demo logs, raw logs to samples, evaluation."""
