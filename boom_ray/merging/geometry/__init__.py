"""How members lie to one another: statistics that are kept, and the report that people look at."""
