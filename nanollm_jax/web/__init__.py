"""From web crawl to clean documents: pure functions on one page each, and deduplication of all.

The steps are those of FineWeb (arXiv:2406.17557) in the order of its released code.
"""
