"""`python -m jax_promptmtl VERB ...` is `python -m jax_promptmtl.VERB ...`."""
