"""3-D denoising diffusion probabilistic model (placeholder)."""
