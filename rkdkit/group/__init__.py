"""One training by several processes, which share each batch: `torchrun` starts them, `torch.distributed` joins them."""
