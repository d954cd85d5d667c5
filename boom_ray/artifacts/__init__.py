"""What passes between stages, as later stages read it: token files of a corpus, plans of bags."""
