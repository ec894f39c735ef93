"""The embedding table, its rows dealt over the workers: requests, pooling, exchange, optimisers."""
