"""The cache tiers: memory of a worker, disk of the node, and the flights behind them."""
