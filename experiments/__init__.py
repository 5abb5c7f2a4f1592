"""One file a stage, in pipeline order; the only place where the rooms meet."""
