"""Tools: what a model may call, each a function from text to text that never raises.

Where it fails, its text begins with `Error:`, which is counted.
"""
