"""Diffusion: process, samplers, guidance and preconditioning; tensors in, tensors out."""
