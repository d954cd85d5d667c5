"""Entry points for `python jobs/x.py` and `ray job submit`: each reads a configuration and calls one flow."""
