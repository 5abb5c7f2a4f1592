"""One update and one loop for every stage: optimizer, state, step, loop."""
