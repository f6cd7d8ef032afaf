"""The cache tiers: memory of a worker, disk of the node, Redis of the site, and the flights behind them."""
