"""The diffusion process, its samplers and its preconditioning: tensors in, tensors out."""
