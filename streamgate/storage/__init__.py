"""Adapters to stores: objects (source bytes), and the assets made of them."""
