"""The speed benchmark against PyTorch: `python -m jax_promptmtl.bench`, see `driver`."""
