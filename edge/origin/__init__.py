"""Sources that are objects of a store: what is read of them, and how segments are cut from that."""
