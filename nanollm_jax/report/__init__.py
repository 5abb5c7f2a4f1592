"""A run's page (`write`), and figures in the same hand (`curve`, `picture`)."""

from nanollm_jax.report.figure import curve, picture
from nanollm_jax.report.page import write

__all__ = ['curve', 'picture', 'write']
