"""The corpus stage: sources of many forms become one deduplicated, tokenised, fingerprinted corpus."""
