"""The control plane: what stands beside the edge and decides, in a process of its own."""
