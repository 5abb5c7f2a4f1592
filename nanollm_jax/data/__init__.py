"""Documents to token shards to packed, resumable batches; numpy only."""
