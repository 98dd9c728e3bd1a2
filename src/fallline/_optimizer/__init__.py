"""The public face: optimizers, their hyper-parameters and state, partitions, and the named ones."""
