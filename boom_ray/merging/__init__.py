"""The merge stage: members in, one complete sentence-transformers model out, in bounded memory."""
