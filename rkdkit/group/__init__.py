"""One training, or a long measurement, by several processes: `torchrun` starts them, `torch.distributed` joins them."""
